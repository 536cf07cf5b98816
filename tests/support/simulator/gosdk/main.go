// Command gosdk uses a cloud as somebody else's client of Keystone clouds does, with the credentials in OS_*, and
// prints what it met: one JSON object. The first argument is an AS group, the second an SMN topic.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/catalog"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
)

type hook struct {
	Name      string    `json:"lifecycle_hook_name,omitempty"`
	Type      string    `json:"lifecycle_hook_type,omitempty"`
	Result    string    `json:"default_result,omitempty"`
	Timeout   int       `json:"default_timeout,omitempty"`
	TopicURN  string    `json:"notification_topic_urn,omitempty"`
	TopicName string    `json:"notification_topic_name,omitempty"`
	Metadata  string    `json:"notification_metadata,omitempty"`
	CreatedAt time.Time `json:"create_time,omitzero"`
}

type refusal struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
}

type report struct {
	Endpoint     string    `json:"endpoint"`
	TokenExpires time.Time `json:"token_expires"`
	Project      string    `json:"project"`
	DomainScoped string    `json:"domain_scoped"`
	Projects     []string  `json:"projects"`
	Services     []string  `json:"services"`
	Created      hook      `json:"created"`
	Got          hook      `json:"got"`
	Listed       []hook    `json:"listed"`
	Modified     hook      `json:"modified"`
	Left         []hook    `json:"left"`
	Duplicate    refusal   `json:"duplicate"`
	NoGroup      refusal   `json:"no_group"`
	NoHook       refusal   `json:"no_hook"`
	NoToken      refusal   `json:"no_token"`
	WrongLogin   int       `json:"wrong_login"`
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	found, err := use(ctx, os.Args[1], os.Args[2])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func use(ctx context.Context, group, topic string) (found report, err error) {
	options, err := openstack.AuthOptionsFromEnv()
	if err != nil {
		return found, err
	}
	options.AllowReauth = true
	provider, err := openstack.AuthenticatedClient(ctx, options)
	if err != nil {
		return found, fmt.Errorf("log in: %w", err)
	}
	if err = meetIdentity(ctx, provider, options, &found); err != nil {
		return found, fmt.Errorf("identity: %w", err)
	}
	found.Endpoint, err = provider.EndpointLocator(gophercloud.EndpointOpts{
		Type: "asv1", Region: os.Getenv("OS_REGION_NAME"), Availability: gophercloud.AvailabilityPublic,
	})
	if err != nil {
		return found, fmt.Errorf("find AS in the catalog: %w", err)
	}
	as := &gophercloud.ServiceClient{ProviderClient: provider, Endpoint: found.Endpoint, Type: "asv1"}
	return found, meetHooks(ctx, as, group, topic, &found)
}

func meetIdentity(
	ctx context.Context, provider *gophercloud.ProviderClient, options gophercloud.AuthOptions, found *report,
) error {
	token := provider.GetAuthResult().(tokens.CreateResult)
	expiring, err := token.ExtractToken()
	if err != nil {
		return err
	}
	project, err := token.ExtractProject()
	if err != nil {
		return err
	}
	found.TokenExpires, found.Project = expiring.ExpiresAt, project.Name

	identity, err := openstack.NewIdentityV3(provider, gophercloud.EndpointOpts{})
	if err != nil {
		return err
	}
	pages, err := projects.List(identity, projects.ListOpts{Name: project.Name}).AllPages(ctx)
	if err != nil {
		return err
	}
	known, err := projects.ExtractProjects(pages)
	if err != nil {
		return err
	}
	for _, each := range known {
		found.Projects = append(found.Projects, each.ID)
	}
	pages, err = catalog.List(identity).AllPages(ctx)
	if err != nil {
		return err
	}
	services, err := catalog.ExtractServiceCatalog(pages)
	if err != nil {
		return err
	}
	for _, each := range services {
		found.Services = append(found.Services, each.Type)
	}

	ofDomain := options
	ofDomain.TenantName, ofDomain.Scope = "", &gophercloud.AuthScope{DomainName: options.DomainName}
	second, err := openstack.AuthenticatedClient(ctx, ofDomain)
	if err != nil {
		return fmt.Errorf("log in to the domain: %w", err)
	}
	domain, err := second.GetAuthResult().(tokens.CreateResult).ExtractDomain()
	if err != nil {
		return err
	}
	found.DomainScoped = domain.Name

	wrong := options
	wrong.Password += "-not"
	_, err = openstack.AuthenticatedClient(ctx, wrong)
	found.WrongLogin, _, err = refused(err)
	return err
}

func meetHooks(ctx context.Context, as *gophercloud.ServiceClient, group, topic string, found *report) error {
	hooks := as.ServiceURL("scaling_lifecycle_hook", group)
	wanted := hook{Name: "from-go", Type: "INSTANCE_LAUNCHING", TopicURN: topic}
	url := hooks + "/" + wanted.Name
	var listed struct {
		Hooks []hook `json:"lifecycle_hooks"`
	}
	steps := []func() error{
		func() error { return send(ctx, as, http.MethodPost, hooks, wanted, &found.Created) },
		func() error { return send(ctx, as, http.MethodGet, url, nil, &found.Got) },
		func() error { return send(ctx, as, http.MethodGet, hooks+"/list", nil, &listed) },
		func() error { found.Listed = listed.Hooks; return nil },
		// The token is no longer good: the client logs in again by itself.
		func() error { as.SetToken("gone"); return nil },
		func() error { return send(ctx, as, http.MethodPut, url, hook{Timeout: 120}, &found.Modified) },
		func() error { return meet(&found.Duplicate, send(ctx, as, http.MethodPost, hooks, wanted, nil)) },
		func() error {
			return meet(&found.NoGroup, send(ctx, as, http.MethodGet, as.ServiceURL("scaling_lifecycle_hook", "none", "list"), nil, nil))
		},
		func() error { return send(ctx, as, http.MethodDelete, url, nil, nil) },
		func() error { return meet(&found.NoHook, send(ctx, as, http.MethodDelete, url, nil, nil)) },
		func() error { return send(ctx, as, http.MethodGet, hooks+"/list", nil, &listed) },
		func() error { found.Left = listed.Hooks; return nil },
		func() error {
			stranger := &gophercloud.ServiceClient{ProviderClient: &gophercloud.ProviderClient{}, Endpoint: as.Endpoint}
			return meet(&found.NoToken, send(ctx, stranger, http.MethodGet, hooks+"/list", nil, nil))
		},
	}
	for number, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", number, err)
		}
	}
	return nil
}

// send takes exactly 200 for a success, of a delete exactly 204, as this cloud's own clients do.
func send(ctx context.Context, as *gophercloud.ServiceClient, method, url string, body, into any) error {
	options := &gophercloud.RequestOpts{JSONBody: body, JSONResponse: into, OkCodes: []int{http.StatusOK}}
	if method == http.MethodDelete {
		options.OkCodes = []int{http.StatusNoContent}
	}
	response, err := as.Request(ctx, method, url, options)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func meet(into *refusal, err error) error {
	var body []byte
	into.Status, body, err = refused(err)
	if err != nil {
		return err
	}
	var answer struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	err = json.Unmarshal(body, &answer)
	into.Code = answer.Error.Code
	return err
}

func refused(err error) (int, []byte, error) {
	var refusal gophercloud.ErrUnexpectedResponseCode
	if !errors.As(err, &refusal) {
		return 0, nil, fmt.Errorf("not the refusal that was expected: %v", err)
	}
	return refusal.Actual, refusal.Body, nil
}
