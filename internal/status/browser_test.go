package status

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// browserTimeout is generous: only a test that fails reaches it.
const browserTimeout = time.Minute

// browser is a real Chromium without a window, driven over the WebDriver protocol. Use newBrowser. What it opens next
// takes the place of what it has open.
type browser struct {
	session string // the URL of the session
	client  http.Client
}

// newBrowser starts a browser, which ends with the test. If there is none, it skips the test or, in CI, fails it.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	for _, name := range []string{"chromium", "chromedriver"} {
		if _, err := exec.LookPath(name); err != nil && os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing, which CI must have: apt-get install chromium chromium-driver: %v", name, err)
		} else if err != nil {
			t.Skipf("needs Debian's packages chromium and chromium-driver: %v", err)
		}
	}
	b := &browser{client: http.Client{Timeout: 2 * browserTimeout}}
	driver := startDriver(t)
	var opened struct{ SessionID string }
	b.call(t, http.MethodPost, driver+"/session", browserCapabilities, &opened)
	b.session = driver + "/session/" + opened.SessionID
	t.Cleanup(func() { b.call(t, http.MethodDelete, b.session, nil, nil) })
	return b
}

// browserCapabilities: root has no sandbox, a container has little shared memory, and with a pipe instead of a port the
// browser ends when the driver does. The two logs show what the page asked for and what it complained about.
var browserCapabilities = map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
	"goog:chromeOptions": map[string]any{"args": []string{
		"--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-extensions", "--hide-scrollbars",
		"--remote-debugging-pipe",
	}},
	"goog:loggingPrefs": map[string]string{"browser": "ALL", "performance": "ALL"},
	"timeouts":          map[string]int64{"script": browserTimeout.Milliseconds()},
}}}

// startDriver starts chromedriver on a free port of 127.0.0.1 and gives its URL. Nothing of it is left afterwards: the
// driver and what it starts keep their files in a directory of their own.
func startDriver(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "browser")
	require.NoError(t, err)
	cmd := exec.Command("chromedriver", "--port=0", "--allowed-ips=127.0.0.1")
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		_ = os.RemoveAll(dir) // the browser may still be writing its last words
	})
	started := regexp.MustCompile(`started successfully on port (\d+)`)
	var heard strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); heard.WriteString(lines.Text() + "\n") {
		if match := started.FindStringSubmatch(lines.Text()); match != nil {
			return "http://127.0.0.1:" + match[1]
		}
	}
	t.Fatalf("chromedriver did not start; it said:\n%s", heard.String())
	return ""
}

// call makes one request of the protocol and reads the value of its answer into value, unless that is nil.
func (b *browser) call(t *testing.T, method, url string, body, value any) {
	t.Helper()
	if body == nil {
		body = struct{}{}
	}
	text, err := json.Marshal(body)
	require.NoError(t, err)
	request, err := http.NewRequest(method, url, bytes.NewReader(text))
	require.NoError(t, err)
	response, err := b.client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	var answer struct{ Value json.RawMessage }
	require.NoError(t, json.NewDecoder(response.Body).Decode(&answer))
	require.Equal(t, http.StatusOK, response.StatusCode, "%s %s: %s", method, url, answer.Value)
	if value != nil {
		require.NoError(t, json.Unmarshal(answer.Value, value), "%s", answer.Value)
	}
}

// open goes to a page and waits until it is loaded. What was logged before is forgotten.
func (b *browser) open(t *testing.T, url string) {
	t.Helper()
	b.call(t, http.MethodPost, b.session+"/url", map[string]string{"url": "about:blank"}, nil)
	b.log(t, "browser")
	b.log(t, "performance")
	b.call(t, http.MethodPost, b.session+"/url", map[string]string{"url": url}, nil)
}

// await waits until the expression, in JavaScript, is true of the page. It looks whenever the page changes.
func (b *browser) await(t *testing.T, expression string) {
	t.Helper()
	script := fmt.Sprintf(`const done = arguments[0], holds = () => { try { return Boolean(%s) } catch { return false } };
		if (holds()) { done(null); return }
		const observer = new MutationObserver(() => { if (holds()) { observer.disconnect(); clearTimeout(limit); done(null) } });
		const limit = setTimeout(() => done(document.body.innerText), %d);
		observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true})`,
		expression, browserTimeout.Milliseconds()*9/10)
	var instead *string
	b.call(t, http.MethodPost, b.session+"/execute/async", map[string]any{"script": script, "args": []any{}}, &instead)
	if instead != nil {
		t.Fatalf("the page never came to %s; it shows:\n%s", expression, *instead)
	}
}

// awaitText waits until an element shows the text.
func (b *browser) awaitText(t *testing.T, id, text string) {
	t.Helper()
	quoted, err := json.Marshal(text)
	require.NoError(t, err)
	b.await(t, fmt.Sprintf("%s.includes(%s)", shownText(id), quoted))
}

// shownText is an expression for the text of an element: the browser itself gives that of a hidden one, too.
func shownText(id string) string {
	return fmt.Sprintf("(e => e.checkVisibility() ? e.innerText : '')(document.getElementById(%q))", id)
}

// eval gives the value of an expression in JavaScript.
func (b *browser) eval(t *testing.T, expression string, value any) {
	t.Helper()
	b.call(t, http.MethodPost, b.session+"/execute/sync", map[string]any{"script": "return " + expression, "args": []any{}}, value)
}

// text gives the text of an element as it is rendered, with one space for all white space, and nothing if it is hidden.
func (b *browser) text(t *testing.T, id string) string {
	t.Helper()
	var text string
	b.eval(t, shownText(id), &text)
	return strings.Join(strings.Fields(text), " ")
}

// accessible gives what an assistive technology sees of the element that a CSS selector finds: its role and its name.
func (b *browser) accessible(t *testing.T, css string) (role, label string) {
	t.Helper()
	element := b.session + "/element/" + b.find(t, css)
	b.call(t, http.MethodGet, element+"/computedrole", nil, &role)
	b.call(t, http.MethodGet, element+"/computedlabel", nil, &label)
	return role, label
}

// find gives the identifier of the element that a CSS selector finds.
func (b *browser) find(t *testing.T, css string) string {
	t.Helper()
	var found map[string]string
	b.call(t, http.MethodPost, b.session+"/element", map[string]string{"using": "css selector", "value": css}, &found)
	for _, id := range found {
		return id
	}
	t.Fatalf("no element %s", css)
	return ""
}

// cdp makes a call of Chromium's own protocol, for what WebDriver has no word for.
func (b *browser) cdp(t *testing.T, command string, params map[string]any, value any) {
	t.Helper()
	b.call(t, http.MethodPost, b.session+"/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, value)
}

// logEntry is a row of one of the browser's logs.
type logEntry struct{ Level, Source, Message string }

// log gives what came into a log since it was last read: "browser" or "performance".
func (b *browser) log(t *testing.T, kind string) []logEntry {
	t.Helper()
	var entries []logEntry
	b.call(t, http.MethodPost, b.session+"/se/log", map[string]string{"type": kind}, &entries)
	return entries
}

// requests gives the URL of each request since the page was opened.
func (b *browser) requests(t *testing.T) []string {
	t.Helper()
	var urls []string
	for _, entry := range b.log(t, "performance") {
		var event struct {
			Message struct {
				Method string
				Params struct{ Request struct{ URL string } }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(entry.Message), &event))
		if event.Message.Method == "Network.requestWillBeSent" {
			urls = append(urls, event.Message.Params.Request.URL)
		}
	}
	return urls
}

// screenshot keeps a picture of the whole page, width pixels wide, as NAME.png in the directory TEST_ARTIFACTS; without
// that variable it only makes one.
func (b *browser) screenshot(t *testing.T, name string, width int) {
	t.Helper()
	dir := os.Getenv("TEST_ARTIFACTS")
	if dir == "" {
		dir = t.TempDir()
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	b.cdp(t, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": false}, nil)
	defer b.cdp(t, "Emulation.clearDeviceMetricsOverride", map[string]any{}, nil)
	var picture struct{ Data string }
	b.cdp(t, "Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &picture)
	png, err := base64.StdEncoding.DecodeString(picture.Data)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}
