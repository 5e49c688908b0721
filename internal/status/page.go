package status

import (
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// page is page.html, the whole page. It loads nothing but the status. The program has it packed, because it is a third of
// the size then.
var page = sync.OnceValue(func() string {
	text, _ := io.ReadAll(flate.NewReader(strings.NewReader(packedPage))) // a test reads it, too
	return string(text)
})

// pageWidth is how many columns the text has that the page shows without scripts.
const pageWidth = 80

// pagePolicy lets the browser apply the script and the style of the page by their hashes, and ask this server; nothing
// else. Markup that got into the page, from the name of a version or an error, could do nothing.
var pagePolicy = sync.OnceValue(func() string {
	return "default-src 'none'; connect-src 'self'; img-src data:; script-src " + sourceHash("script") + "; style-src " + sourceHash("style") +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
})

// sourceHash gives the hash of the only element with this tag, as a source of a policy.
func sourceHash(tag string) string {
	_, rest, _ := strings.Cut(page(), "<"+tag+">")
	content, _, _ := strings.Cut(rest, "</"+tag+">")
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// htmlEscapes make text safe in an element. Package html would do so, too, but it brings a table of all entities, 60 kB.
var htmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// servePage answers with the page. Its script keeps it up to date; before that, and without scripts, it shows this
// report.
func servePage(w http.ResponseWriter, r Report) {
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Content-Security-Policy", pagePolicy())
	values := []string{"{{title}}", r.headline(), "{{who}}", r.who(), "{{state}}", r.state(), "{{now}}", utc(time.Now()), "{{text}}", r.View(pageWidth)}
	for i := 1; i < len(values); i += 2 {
		values[i] = htmlEscapes.Replace(values[i])
	}
	answer(w, "text/html; charset=utf-8", []byte(strings.NewReplacer(values...).Replace(page())))
}
