"""What is read and written at the API server, besides what kopf watches. Nothing here knows the cloud."""
