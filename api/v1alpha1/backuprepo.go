// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"filippo.io/age"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// StorageProvider is the kind of place a repository is in.
//
// +kubebuilder:validation:Enum=filesystem;s3;pvc
type StorageProvider string

// The kinds of places.
const (
	ProviderFilesystem StorageProvider = "filesystem"
	ProviderS3         StorageProvider = "s3"
	ProviderPVC        StorageProvider = "pvc"
)

// AccessTool is the one access method: kbcli reads and writes the place itself.
const AccessTool = "Tool"

// BackupRepo is a place where backups and WAL live. There is one set for the
// whole installation.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule="!has(self.spec.persistentVolumeClaim) || self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$')",message="the name of a repository on a claim is a DNS label of at most 40 characters"
// +kubebuilder:resource:path=backuprepos,singular=backuprepo,shortName=br,scope=Cluster,categories={kubeblocks}
// +kubebuilder:printcolumn:name="STATUS",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="STORAGE-PROVIDER",type=string,JSONPath=`.spec.storageProvider`
// +kubebuilder:printcolumn:name="ACCESS-METHOD",type=string,JSONPath=`.spec.accessMethod`
// +kubebuilder:printcolumn:name="DEFAULT",type=boolean,JSONPath=`.spec.default`
// +kubebuilder:printcolumn:name="BACKUPS",type=integer,JSONPath=`.status.backups`
// +kubebuilder:printcolumn:name="TOTAL-SIZE",type=integer,JSONPath=`.status.totalSize`
type BackupRepo struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec   BackupRepoSpec   `json:"spec"`
	Status BackupRepoStatus `json:"status,omitzero"`
}

// BackupRepoSpec names the place. Which of Filesystem, S3 and PersistentVolumeClaim is
// given is what StorageProvider says.
//
// +kubebuilder:validation:XValidation:rule="has(self.storageProvider) || [has(self.filesystem), has(self.s3), has(self.persistentVolumeClaim)].filter(x, x).size() == 1",message="must be given",fieldPath=".storageProvider"
// +kubebuilder:validation:XValidation:rule="!has(self.storageProvider) || (self.storageProvider == 'filesystem') == has(self.filesystem)",message="belongs to the storage provider filesystem, which must have it",fieldPath=".filesystem"
// +kubebuilder:validation:XValidation:rule="!has(self.storageProvider) || (self.storageProvider == 's3') == has(self.s3)",message="belongs to the storage provider s3, which must have it",fieldPath=".s3"
// +kubebuilder:validation:XValidation:rule="!has(self.storageProvider) || (self.storageProvider == 'pvc') == has(self.persistentVolumeClaim)",message="belongs to the storage provider pvc, which must have it",fieldPath=".persistentVolumeClaim"
// +kubebuilder:validation:XValidation:rule="has(self.s3) == has(oldSelf.s3) && has(self.persistentVolumeClaim) == has(oldSelf.persistentVolumeClaim)",message="cannot be changed",fieldPath=".storageProvider"
// +kubebuilder:validation:XValidation:rule="has(self.sealing) == has(oldSelf.sealing)",message="cannot be turned on or off: make another repository",fieldPath=".sealing"
type BackupRepoSpec struct {
	// StorageProvider is the kind of place. It may be left out where only one of
	// Filesystem, S3 and PersistentVolumeClaim is given.
	StorageProvider StorageProvider `json:"storageProvider,omitempty"`

	// AccessMethod is how the place is reached. There is Tool: kbcli does it itself.
	// +kubebuilder:validation:Enum=Tool
	// +kubebuilder:default=Tool
	// +optional
	AccessMethod string `json:"accessMethod,omitempty"`

	// Default makes it the repository of the policies that name none. At most one
	// repository has it.
	// +optional
	Default bool `json:"default"`

	// Filesystem is a directory.
	// +optional
	Filesystem *FilesystemRepo `json:"filesystem,omitempty"`
	// S3 is a part of a bucket.
	// +optional
	S3 *S3Repo `json:"s3,omitempty"`
	// PersistentVolumeClaim is a volume, on Kubernetes.
	// +optional
	PersistentVolumeClaim *ClaimRepo `json:"persistentVolumeClaim,omitempty"`
	// Sealing encrypts everything before it leaves the machine.
	// +optional
	Sealing *SealingSpec `json:"sealing,omitempty"`
}

// FilesystemRepo is a directory.
type FilesystemRepo struct {
	// Path is absolute. It cannot be changed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^(/|(/([^/.\x00][^/\x00]*|\.[^/.\x00][^/\x00]*|\.\.[^/\x00]+))+)?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed"
	Path string `json:"path"`
}

// S3Repo is a part of a bucket.
//
// +kubebuilder:validation:XValidation:rule=`self.?endpoint.orValue("") != "" || self.?region.orValue("") != ""`,message="must have an endpoint or a region"
// +kubebuilder:validation:XValidation:rule=`!has(self.prefix) || self.prefix == "" ? !has(oldSelf.prefix) || oldSelf.prefix == "" : has(oldSelf.prefix) && self.prefix == oldSelf.prefix`,message="cannot be changed",fieldPath=".prefix"
type S3Repo struct {
	// Endpoint is a URL, https://s3.eu-west-1.amazonaws.com. Empty is that of AWS for the region.
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule=`self == "" || (isURL(self) && self.matches('^(?i:https?)://[^/?#@]+/?$'))`,message="must be a URL of a host alone such as https://s3.eu-west-1.amazonaws.com, without a user or a password"
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
	// Region is that of the bucket.
	// +optional
	Region string `json:"region,omitempty"`
	// Bucket is the name of the bucket. It cannot be changed.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed"
	Bucket string `json:"bucket"`
	// Prefix comes before every key, without a slash at either end. It cannot be changed.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^(([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+)(/([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))*)?$`
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// PathStyle puts the bucket in the path and not in the host name.
	// +optional
	PathStyle bool `json:"pathStyle,omitempty"`
	// CAFile is a PEM file of authorities to trust besides the system's.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^(/|(/([^/.\x00][^/\x00]*|\.[^/.\x00][^/\x00]*|\.\.[^/\x00]+))+)?$`
	// +optional
	CAFile string `json:"caFile,omitempty"`
	// InsecureSkipVerify takes any certificate.
	// +optional
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
	// CredentialsFile is a file that only its owner can read. Empty is the usual
	// chain: environment, shared credentials file, role of the machine.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^(/|(/([^/.\x00][^/\x00]*|\.[^/.\x00][^/\x00]*|\.\.[^/\x00]+))+)?$`
	// +optional
	CredentialsFile string `json:"credentialsFile,omitempty"`
}

// SealingSpec encrypts everything before it leaves the machine, with age.
type SealingSpec struct {
	// Recipients are public keys of age, age1…. Any one of them opens the repository.
	// +required
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:items:Pattern=`^age1`
	Recipients []string `json:"recipients"`
	// IdentityFile holds a private key, for reading. It stays on this machine.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^(/|(/([^/.\x00][^/\x00]*|\.[^/.\x00][^/\x00]*|\.\.[^/\x00]+))+)?$`
	// +optional
	IdentityFile string `json:"identityFile,omitempty"`
}

// BackupRepoPhase is the state of a repository in one word.
type BackupRepoPhase string

// The phases of a repository.
const (
	RepoPreChecking BackupRepoPhase = "PreChecking"
	RepoReady       BackupRepoPhase = "Ready"
	RepoFailed      BackupRepoPhase = "Failed"
	RepoDeleting    BackupRepoPhase = "Deleting"
)

// BackupRepoStatus is what was found there.
type BackupRepoStatus struct {
	Phase              BackupRepoPhase `json:"phase,omitempty"`
	Message            string          `json:"message,omitempty"`
	ObservedGeneration int64           `json:"observedGeneration,omitempty"`
	// Backups is how many there are, TotalSize the bytes that they take. WAL is
	// not counted.
	Backups   int64 `json:"backups"`
	TotalSize int64 `json:"totalSize"`
	// Volume is that of the provider pvc.
	Volume VolumeStatus `json:"volume,omitzero"`
}

// BackupRepoList is several of them, as the Kubernetes API hands them out.
//
// +kubebuilder:object:root=true
type BackupRepoList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []BackupRepo `json:"items"`
}

// GroupVersionKind is that of every BackupRepo.
func (r *BackupRepo) GroupVersionKind() schema.GroupVersionKind {
	return gvk(DataProtectionGroup, KindBackupRepo)
}

// SetDefaults fills what was left unsaid.
func (r *BackupRepo) SetDefaults() {
	r.SetGroupVersionKind(r.GroupVersionKind())
	s := &r.Spec
	if s.AccessMethod == "" {
		s.AccessMethod = AccessTool
	}
	if s.StorageProvider == "" {
		switch {
		case s.S3 != nil && s.Filesystem == nil && s.PersistentVolumeClaim == nil:
			s.StorageProvider = ProviderS3
		case s.Filesystem != nil && s.S3 == nil && s.PersistentVolumeClaim == nil:
			s.StorageProvider = ProviderFilesystem
		case s.PersistentVolumeClaim != nil && s.S3 == nil && s.Filesystem == nil:
			s.StorageProvider = ProviderPVC
		}
	}
	if s.PersistentVolumeClaim != nil {
		s.PersistentVolumeClaim.setDefaults()
	}
}

var bucketForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Validate is everything that is wrong with the name and the spec.
func (r *BackupRepo) Validate() error {
	var l FieldErrors
	l.subdomain("metadata.name", r.Name)
	l.metadata(r)
	s := &r.Spec
	switch s.StorageProvider {
	case "":
		l.required("spec.storageProvider")
	case ProviderFilesystem, ProviderS3, ProviderPVC:
		l.section("spec.filesystem", s.StorageProvider, ProviderFilesystem, s.Filesystem != nil)
		l.section("spec.s3", s.StorageProvider, ProviderS3, s.S3 != nil)
		l.section("spec.persistentVolumeClaim", s.StorageProvider, ProviderPVC, s.PersistentVolumeClaim != nil)
	default:
		l.invalid("spec.storageProvider", string(s.StorageProvider), "is not one of filesystem, s3, pvc")
	}
	if s.AccessMethod != AccessTool {
		l.invalid("spec.accessMethod", s.AccessMethod, "is not known: there is Tool")
	}
	if s.Filesystem != nil {
		if s.Filesystem.Path == "" {
			l.required("spec.filesystem.path")
		}
		l.absolute("spec.filesystem.path", s.Filesystem.Path)
	}
	if s.S3 != nil {
		s.S3.validate(&l, "spec.s3")
	}
	if c := s.PersistentVolumeClaim; c != nil {
		c.validate(&l, "spec.persistentVolumeClaim")
		if !claimRepoName.MatchString(r.Name) {
			l.invalid("metadata.name", r.Name, "is too long, or has a dot: that of a repository on a claim is a DNS label of at most 40 characters")
		}
	}
	if s.Sealing != nil {
		s.Sealing.validate(&l, "spec.sealing")
	}
	return l.orNil()
}

// section wants the part of the spec that belongs to the provider, and no other.
func (l *FieldErrors) section(path string, is, owner StorageProvider, given bool) {
	if is == owner && !given {
		l.required(path)
	} else if is != owner && given {
		l.forbidden(path, fmt.Sprintf("is only for the storage provider %s", owner))
	}
}

func (s *S3Repo) validate(l *FieldErrors, path string) {
	if s.Endpoint != "" {
		u, err := url.Parse(s.Endpoint)
		switch {
		case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
			// A URL that does not parse may have a secret in it as well.
			l.invalid(path+".endpoint", "", "must be a URL such as https://s3.eu-west-1.amazonaws.com")
		case u.User != nil:
			l.forbidden(path+".endpoint", "must not hold a user or a password: use credentialsFile")
		case (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "":
			l.invalid(path+".endpoint", s.Endpoint, "has more than a host: the bucket and the prefix have fields of their own")
		}
	} else if s.Region == "" {
		l.invalid(path, "", "must have an endpoint or a region")
	}
	if s.Bucket == "" {
		l.required(path + ".bucket")
	} else if !bucketForm.MatchString(s.Bucket) {
		l.invalid(path+".bucket", s.Bucket, "is not the name of a bucket: 3 to 63 lower-case letters, digits, '-' and '.'")
	}
	for _, part := range strings.Split(s.Prefix, "/") {
		if s.Prefix != "" && (part == "" || part == "." || part == "..") {
			l.invalid(path+".prefix", s.Prefix, "has an empty part, . or ..")
			break
		}
	}
	l.absolute(path+".caFile", s.CAFile)
	l.absolute(path+".credentialsFile", s.CredentialsFile)
}

// isRecipient tells whether s is one public key that data can be sealed to.
func isRecipient(s string) bool {
	keys, err := age.ParseRecipients(strings.NewReader(s))
	return err == nil && len(keys) == 1 && strings.TrimSpace(s) == s
}

func (s *SealingSpec) validate(l *FieldErrors, path string) {
	if len(s.Recipients) == 0 {
		l.required(path + ".recipients")
	}
	for i, r := range s.Recipients {
		at := fmt.Sprintf("%s.recipients[%d]", path, i)
		switch {
		case strings.HasPrefix(r, "AGE-SECRET-KEY-"):
			l.forbidden(at, "is a private key: give the public one, age1…")
		case !isRecipient(r):
			l.invalid(at, r, "is not a public key of age, age1…, as age-keygen prints it")
		}
	}
	l.absolute(path+".identityFile", s.IdentityFile)
}

// ValidateUpdate refuses to move a repository: another place is another
// repository. How it is reached may change.
func (r *BackupRepo) ValidateUpdate(old Object) error {
	var l FieldErrors
	was, is := &old.(*BackupRepo).Spec, &r.Spec
	immutable(&l, "spec.storageProvider", was.StorageProvider, is.StorageProvider)
	if was.Filesystem != nil && is.Filesystem != nil {
		immutable(&l, "spec.filesystem.path", was.Filesystem.Path, is.Filesystem.Path)
	}
	if was.S3 != nil && is.S3 != nil {
		immutable(&l, "spec.s3.bucket", was.S3.Bucket, is.S3.Bucket)
		immutable(&l, "spec.s3.prefix", was.S3.Prefix, is.S3.Prefix)
	}
	if was.PersistentVolumeClaim != nil && is.PersistentVolumeClaim != nil {
		is.PersistentVolumeClaim.validateUpdate(&l, "spec.persistentVolumeClaim", was.PersistentVolumeClaim)
	}
	if (was.Sealing == nil) != (is.Sealing == nil) {
		l.forbidden("spec.sealing", "cannot be turned on or off: make another repository")
	}
	return l.orNil()
}

// AmazonEndpoint tells whether an endpoint is one of Amazon's, which wants the bucket in the
// host name; the empty one is.
func AmazonEndpoint(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	h := u.Hostname()
	return endpoint == "" || strings.HasSuffix(h, ".amazonaws.com") || strings.HasSuffix(h, ".amazonaws.com.cn")
}
