// SPDX-License-Identifier: Apache-2.0

package served

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/kbcli/kbcli/engine/blob"
)

// Server hands out a place.
type Server struct {
	// Store is the place. It reads bodies in order and once, as fs does.
	Store blob.Store
	// Access is asked at each request.
	Access func() (Access, error)
	// Space is how large the place is, and what is left.
	Space func() (Space, error)
	Log   *slog.Logger
}

// Handler answers requests. Each holds at most a megabyte and, for a list, the names of one
// folder at each level.
func (s *Server) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/stat/{key...}", s.stat)
	m.HandleFunc("GET /v1/objects/{key...}", s.get)
	m.HandleFunc("PUT /v1/objects/{key...}", s.put)
	m.HandleFunc("DELETE /v1/objects/{key...}", s.remove)
	m.HandleFunc("GET /v1/list", s.list)
	m.HandleFunc("GET /v1/space", s.space)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := s.Access()
		if err != nil {
			s.Log.Error("the access of the place cannot be read", "error", err)
			http.Error(w, "the access of the place cannot be read", http.StatusServiceUnavailable)
			return
		}
		if !a.admits(r.Header.Get("Authorization")) {
			http.Error(w, "the token is another", http.StatusUnauthorized)
			return
		}
		m.ServeHTTP(w, r)
	})
}

// fail answers with an error of the place.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	word, status := faultOf(err)
	if word != "not-exist" && word != "exist" && r.Context().Err() == nil {
		s.Log.Warn("the place refuses", "verb", r.Method, "key", r.PathValue("key"), "error", err)
	}
	w.Header().Set(faultHeader, word)
	http.Error(w, err.Error(), status)
}

func (s *Server) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.Log.Debug("nobody hears the answer", "error", err)
	}
}

func (s *Server) stat(w http.ResponseWriter, r *http.Request) {
	i, err := s.Store.Stat(r.Context(), r.PathValue("key"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.json(w, i)
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	offset, err := strconv.ParseInt(r.FormValue("offset"), 10, 64)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	length, err := strconv.ParseInt(r.FormValue("length"), 10, 64)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	body, err := s.Store.Get(r.Context(), r.PathValue("key"), offset, length)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer body.Close()
	if v, ok := body.(interface{ Version() string }); ok {
		w.Header().Set(versionHeader, v.Version())
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	if f, ok := w.(http.Flusher); ok {
		f.Flush() // in chunks, however little there is: an end is told from a break
	}
	if _, err := io.CopyBuffer(w, onlyReader{body}, make([]byte, 256<<10)); err != nil {
		if r.Context().Err() == nil {
			s.Log.Warn("an object broke off", "key", r.PathValue("key"), "error", err)
		}
		panic(http.ErrAbortHandler)
	}
}

// onlyReader hides what else a body can do: the buffer is the caller's.
type onlyReader struct{ io.Reader }

func (s *Server) put(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	if r.ContentLength < 0 {
		http.Error(w, "the length of the body must be given", http.StatusLengthRequired)
		return
	}
	verb := s.Store.Replace
	if r.Header.Get("If-None-Match") == "*" {
		verb = s.Store.Put // which looks before it reads: no byte is sent of what is there
	}
	if err := verb(r.Context(), key, &arriving{from: r.Body, size: r.ContentLength}); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	if err := s.Store.Delete(r.Context(), r.PathValue("key")); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	begun := false
	for i, err := range s.Store.ListAfter(r.Context(), r.FormValue("prefix"), r.FormValue("after")) {
		l := line{Info: &i}
		if err != nil {
			if !begun {
				s.fail(w, r, err)
				return
			}
			word, _ := faultOf(err)
			l = line{Fault: word, Words: err.Error()}
		}
		begun = true
		if err := lines.Encode(l); err != nil {
			panic(http.ErrAbortHandler)
		}
		if l.Info == nil {
			return
		}
	}
}

func (s *Server) space(w http.ResponseWriter, r *http.Request) {
	x, err := s.Space()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.json(w, x)
}
