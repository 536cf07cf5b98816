"""The product on a real cluster, with the cloud simulated inside it."""
