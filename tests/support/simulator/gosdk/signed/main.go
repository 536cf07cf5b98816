// Command signed uses a cloud as somebody else's client with AK/SK does (the Go SDK of the cloud that this one descends
// from). `signed use GROUP TOPIC` works with the access key in the environment and prints what it met, `signed sign`
// signs the requests that it reads and prints their Authorization headers: JSON both.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/signer"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/region"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/request"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"
	as "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/as/v1"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/as/v1/model"
)

type order struct {
	Derived  bool                `json:"derived"`
	Access   string              `json:"access"`
	Secret   string              `json:"secret"`
	Region   string              `json:"region"`
	Service  string              `json:"service"`
	Method   string              `json:"method"`
	Endpoint string              `json:"endpoint"`
	Path     string              `json:"path"`
	Query    map[string][]string `json:"query"`
	Headers  map[string]string   `json:"headers"`
	Body     string              `json:"body"`
}

type refusal struct {
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

type report struct {
	Project     string   `json:"project"`
	Created     string   `json:"created"`
	Metadata    string   `json:"metadata"`
	Listed      []string `json:"listed"`
	Timeout     int32    `json:"timeout"`
	Left        []string `json:"left"`
	Duplicate   refusal  `json:"duplicate"`
	WrongSecret refusal  `json:"wrong_secret"`
}

func main() {
	var found any
	var err error
	if os.Args[1] == "sign" {
		found, err = sign()
	} else {
		found, err = use(os.Args[2], os.Args[3])
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func sign() (headers []string, err error) {
	var orders []order
	if err = json.NewDecoder(os.Stdin).Decode(&orders); err != nil {
		return nil, err
	}
	for _, each := range orders {
		builder := request.NewHttpRequestBuilder().WithMethod(each.Method).WithEndpoint(each.Endpoint).WithPath(each.Path)
		for name, values := range each.Query {
			builder.AddQueryParam(name, reflect.ValueOf(values))
		}
		for name, value := range each.Headers {
			builder.AddHeaderParam(name, value)
		}
		if each.Body != "" {
			builder.WithBody("body", each.Body)
		}
		var added map[string]string
		if each.Derived {
			added, err = signer.SignDerived(builder.Build(), each.Access, each.Secret, each.Service, each.Region)
		} else {
			added, err = signer.Sign(builder.Build(), each.Access, each.Secret)
		}
		if err != nil {
			return nil, err
		}
		headers = append(headers, added["Authorization"])
	}
	return headers, nil
}

// connect finds the project by the region's name, as the SDK does where no project is given.
func connect(secret string) (*as.AsClient, *basic.Credentials, error) {
	url := os.Getenv("CLOUD_URL")
	builder := basic.NewCredentialsBuilder().WithAk(os.Getenv("ACCESS_KEY")).WithSk(secret).
		WithProjectId(os.Getenv("PROJECT_ID")).WithIamEndpointOverride(url)
	if token := os.Getenv("SECURITY_TOKEN"); token != "" {
		builder.WithSecurityToken(token)
	}
	if os.Getenv("DERIVED") != "" {
		builder.WithDerivedPredicate(func(*request.DefaultHttpRequest) bool { return true })
	}
	credentials, err := builder.SafeBuild()
	if err != nil {
		return nil, nil, err
	}
	client, err := as.AsClientBuilder().WithDerivedAuthServiceName("as").WithCredential(credentials).
		WithRegion(region.NewRegion(os.Getenv("REGION"), url)).SafeBuild()
	return as.NewAsClient(client), credentials, err
}

func use(group, topic string) (found report, err error) {
	client, credentials, err := connect(os.Getenv("SECRET_KEY"))
	if err != nil {
		return found, err
	}
	found.Project = credentials.ProjectId
	name, metadata, timeout := "from-go", "grüße, 世界 = 1 + 1", int32(120)
	created, err := client.CreateLifyCycleHook(wanted(group, topic, name, metadata))
	if err != nil {
		return found, fmt.Errorf("create: %w", err)
	}
	found.Created, found.Metadata = *created.LifecycleHookName, *created.NotificationMetadata
	if found.Listed, err = list(client, group); err != nil {
		return found, fmt.Errorf("list: %w", err)
	}
	modified, err := client.UpdateLifeCycleHook(&model.UpdateLifeCycleHookRequest{
		ScalingGroupId: group, LifecycleHookName: name, Body: &model.UpdateLifeCycleHookOption{DefaultTimeout: &timeout},
	})
	if err != nil {
		return found, fmt.Errorf("modify: %w", err)
	}
	found.Timeout = *modified.DefaultTimeout
	_, err = client.CreateLifyCycleHook(wanted(group, topic, name, metadata))
	if found.Duplicate, err = refused(err); err != nil {
		return found, err
	}
	_, err = client.DeleteLifecycleHook(&model.DeleteLifecycleHookRequest{ScalingGroupId: group, LifecycleHookName: name})
	if err != nil {
		return found, fmt.Errorf("delete: %w", err)
	}
	if found.Left, err = list(client, group); err != nil {
		return found, fmt.Errorf("list: %w", err)
	}
	stranger, _, err := connect(os.Getenv("SECRET_KEY") + "x")
	if err != nil {
		return found, err
	}
	_, err = list(stranger, group)
	found.WrongSecret, err = refused(err)
	return found, err
}

func wanted(group, topic, name, metadata string) *model.CreateLifyCycleHookRequest {
	return &model.CreateLifyCycleHookRequest{ScalingGroupId: group, Body: &model.CreateLifeCycleHookOption{
		LifecycleHookName:    name,
		LifecycleHookType:    model.GetCreateLifeCycleHookOptionLifecycleHookTypeEnum().INSTANCE_LAUNCHING,
		NotificationTopicUrn: topic,
		NotificationMetadata: &metadata,
	}}
}

func list(client *as.AsClient, group string) ([]string, error) {
	answer, err := client.ListLifeCycleHooks(&model.ListLifeCycleHooksRequest{ScalingGroupId: group})
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, each := range *answer.LifecycleHooks {
		names = append(names, *each.LifecycleHookName)
	}
	return names, nil
}

func refused(err error) (refusal, error) {
	var answer *sdkerr.ServiceResponseError
	if !errors.As(err, &answer) {
		return refusal{}, fmt.Errorf("not the refusal that was expected: %v", err)
	}
	return refusal{answer.StatusCode, answer.ErrorCode, answer.ErrorMessage}, nil
}
