// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/served"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// nearlyFull is from how many percent on a volume is told to be grown.
const nearlyFull = 90

// volumeAccess is the file with which the volume of a repository is reached.
func volumeAccess(o *v1alpha1.BackupRepo) string {
	return path.Join(names.RepositoriesDirectory, names.RepositoryAccess(o.Name))
}

// openVolume opens a volume that somebody serves, and asks for nothing there.
func openVolume(o *v1alpha1.BackupRepo) (blob.Store, error) {
	v := o.Status.Volume
	if v.Endpoint == "" {
		return nil, fmt.Errorf("%w: %s", blob.ErrUnreachable, cmp.Or(v.Message, "no operator of Kubernetes has made it yet"))
	}
	file := volumeAccess(o)
	return served.Open(served.Config{
		Name: "claim " + v.Namespace + "/" + o.Spec.PersistentVolumeClaim.ClaimName, Endpoint: v.Endpoint,
		Access: func() (served.Access, error) {
			b, err := os.ReadFile(file)
			if err != nil {
				return served.Access{}, fmt.Errorf("%w: %w", blob.ErrUnreachable, err) // on its way, or gone with the BackupRepo
			}
			return served.ParseAccess(b)
		},
	})
}

// volumePhase is how a repository stands that could not be opened, and in what words. A
// volume takes its time until it is served for the first time.
func volumePhase(o *v1alpha1.BackupRepo, err error) (v1alpha1.BackupRepoPhase, string) {
	v := o.Status.Volume
	switch {
	case o.Spec.PersistentVolumeClaim == nil:
		return v1alpha1.RepoFailed, err.Error()
	case v.Refused:
		return v1alpha1.RepoFailed, v.Message
	case v.Endpoint == "":
		return v1alpha1.RepoPreChecking, v.Message
	case !Held(o) && errors.Is(err, blob.ErrUnreachable):
		return v1alpha1.RepoPreChecking, err.Error()
	}
	return v1alpha1.RepoFailed, err.Error()
}

// Held tells whether there was a repository in the place that an object describes.
func Held(o *v1alpha1.BackupRepo) bool { return o.Annotations[annotationRepository] != "" }

// volumeNext is what to do about an error of a volume.
func volumeNext(o *v1alpha1.BackupRepo, err error) string {
	v, claim := o.Status.Volume, o.Spec.PersistentVolumeClaim.ClaimName
	var other *OtherRepositoryError
	switch {
	case errors.As(err, &other):
		return "bring the volume of claim " + claim + " back, or make a BackupRepo of another name for this one"
	case errors.Is(err, blob.ErrNoSpace):
		return grow(o)
	case errors.Is(err, blob.ErrUnreachable) && v.Endpoint != "":
		return cmp.Or(v.Message, fmt.Sprintf("pod %s-0 in namespace %s serves it", names.Repository(o.Name), v.Namespace))
	case errors.Is(err, blob.ErrDenied):
		return "its key has changed, and comes within two minutes"
	case errors.Is(err, repository.ErrSealed):
		return "kbcli backuprepo update " + o.Name + " --identity-file FILE"
	}
	return ""
}

func grow(o *v1alpha1.BackupRepo) string {
	if o.Spec.PersistentVolumeClaim.CreatePolicy == v1alpha1.ClaimNever {
		return "grow claim " + o.Spec.PersistentVolumeClaim.ClaimName
	}
	return "kbcli backuprepo update " + o.Name + " --capacity makes it larger"
}

// volumeWords is what is not as it should be with a volume that is served.
func volumeWords(o *v1alpha1.BackupRepo) string {
	if o.Spec.PersistentVolumeClaim == nil {
		return ""
	}
	v := o.Status.Volume
	var out []string
	if v.Used >= nearlyFull {
		out = append(out, fmt.Sprintf("%d %% of %s are used: %s", v.Used, v1alpha1.FormatSize(v.Capacity), grow(o)))
	}
	if v.NotGrown != "" {
		out = append(out, v.NotGrown)
	}
	return strings.Join(out, "; ")
}
