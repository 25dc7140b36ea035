// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// api reads what is not a kind of ours, by path. A client set would link every kind of
// Kubernetes, for six that are wanted.
type api struct{ client *rest.RESTClient }

func newAPI(config *rest.Config) (api, error) {
	scheme := runtime.NewScheme() // for errors alone
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(config)
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	c.QPS = -1
	client, err := rest.UnversionedRESTClientFor(c)
	if err != nil {
		return api{}, fmt.Errorf("open the Kubernetes API: %w", err)
	}
	return api{client}, nil
}

// get reads the JSON at path into v.
func (a api) get(ctx context.Context, v any, path string, query map[string]string) error {
	r := a.client.Get().AbsPath(path)
	for k, value := range query {
		r.Param(k, value)
	}
	res := r.Do(ctx)
	if err := res.Error(); err != nil {
		return kube.Unreachable(err)
	}
	body, err := res.Raw()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// of is the path of an object of core/v1, or with an empty name of all of a namespace.
func of(namespace, plural, name string, sub ...string) string {
	path := "/api/v1"
	if namespace != "" {
		path += "/namespaces/" + url.PathEscape(namespace)
	}
	path += "/" + plural
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	return strings.Join(append([]string{path}, sub...), "/")
}
