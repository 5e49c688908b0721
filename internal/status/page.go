package status

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"sync"
)

// page is the whole page: it loads nothing but the status.
//
//go:embed page.html
var page string

// pagePolicy lets the browser run the script and the style of the page by their hashes, ask this server, and nothing
// else: markup that got into the page, from the name of a version or an error, could do nothing.
var pagePolicy = sync.OnceValue(func() string {
	return "default-src 'none'; connect-src 'self'; img-src data:; script-src " + sourceHash("script") + "; style-src " + sourceHash("style") +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
})

// sourceHash gives the hash of the one element with this tag, as a source of a policy.
func sourceHash(tag string) string {
	_, rest, _ := strings.Cut(page, "<"+tag+">")
	content, _, _ := strings.Cut(rest, "</"+tag+">")
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", pagePolicy())
	_, _ = io.WriteString(w, page) // a client that has gone does not read it
}
