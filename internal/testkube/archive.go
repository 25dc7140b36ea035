// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// imageConfig is what an image says about the programs in it.
type imageConfig struct {
	Env        []string
	Entrypoint []string `json:",omitempty"`
	User       string   `json:",omitempty"`
	WorkingDir string   `json:",omitempty"`
}

// writeImage writes an image of one layer, a tar file, as docker save would: manifest,
// configuration, layer. containerd imports it, and so does Docker.
func writeImage(out, name, layer string, c imageConfig) (err error) {
	l, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer l.Close()
	h := sha256.New()
	size, err := io.Copy(h, l)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": c,
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", h.Sum(nil))}},
		"history": []map[string]string{{"created_by": "kbcli's tests"}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	for _, e := range []struct {
		name string
		text []byte
	}{{"manifest.json", manifest}, {configName, config}} {
		if err := addFile(w, e.name, 0o644, e.text); err != nil {
			return err
		}
	}
	if _, err := l.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: "layer.tar", Mode: 0o644, Size: size}); err != nil {
		return err
	}
	if _, err := io.Copy(w, l); err != nil {
		return err
	}
	return w.Close()
}

func addFile(w *tar.Writer, name string, mode int64, text []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := w.Write(text)
	return err
}

func addDir(w *tar.Writer, name string, mode int64) error {
	return w.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode})
}

// writeLayer writes a small layer from memory.
func writeLayer(out string, fill func(w *tar.Writer) error) (err error) {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	if err := fill(w); err != nil {
		return err
	}
	return w.Close()
}

// layered writes an image whose layer fill makes, in dir, and returns its path.
func layered(dir, file, name string, c imageConfig, fill func(w *tar.Writer) error) (out string, err error) {
	layer := filepath.Join(dir, file+".layer")
	defer func() { err = errors.Join(err, os.Remove(layer)) }()
	if err := writeLayer(layer, fill); err != nil {
		return "", err
	}
	out = filepath.Join(dir, file)
	return out, writeImage(out, name, layer, c)
}
