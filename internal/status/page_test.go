package status

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

// object is one of JSON.
type object = map[string]any

// canned is a status: of three versions the second one runs and nears its stop height. Changes replace keys of it.
func canned(changes object) object {
	status := object{
		"entrypoint": object{"version": "v1.2.3", "host": "node-7", "pid": 1, "started_at": "2020-05-04T12:00:00Z"}, "role": "leader",
		"phase": "running", "phase_since": "2020-05-04T12:00:05Z", "stopping": false,
		"alive": true, "not_alive_because": "", "ready": true, "not_ready_because": "",
		"version_index": 1, "version": "v1",
		"height":            object{"blocks": 160, "read_at": "2020-05-04T12:10:00Z", "age_seconds": 0.4, "rose_at": "2020-05-04T12:10:00Z"},
		"durable_height":    120,
		"blocks_per_second": 4.0,
		"next_upgrade": object{
			"version_index": 2, "version": "v2", "stop_height": 220, "remaining_blocks": 60, "eta_seconds": 75.5,
			"eta_at": "2020-05-04T12:11:15Z", "migration": true, "hook": false, "preflight": object{"checked_at": "2020-05-04T12:09:30Z", "problems": []string{}},
		},
		"versions": []object{
			cannedVersion(0, object{"state": "completed", "stop_height": 100, "completed_at": "2020-05-04T11:58:00Z", "proof": "durable height"}),
			cannedVersion(1, object{"state": "current", "start_height": 101, "stop_height": 220, "migration": "completed"}),
			cannedVersion(2, object{"start_height": 221, "migration": "due"}),
		},
		"node": object{"version_index": 1, "pid": 17, "started_at": "2020-05-04T12:00:05Z", "starts": 2}, "restarts": 1,
		"migrations": []object{{"version_index": 1, "started_at": "2020-05-04T12:00:02Z", "seconds": 1.5, "exit": "exited 0"}},
		"hold_file":  nil, "hook": nil, "copying": nil, "undo_point": nil, "no_undo_point_because": "", "undo_points_put_back": 0,
		"last_failure": nil, "cannot_be_asked": false, "state_damaged": false, "leftovers": []object{}, "signals_undelivered": []object{},
		"checkpoint": object{"file": "/data/checkpoint.json", "updated_at": "2020-05-04T12:00:04Z"},
	}
	maps.Copy(status, changes)
	return status
}

// cannedVersion is an upcoming version without an end, but for the changes.
func cannedVersion(i int, changes object) object {
	v := object{
		"version_index": i, "version": fmt.Sprintf("v%d", i), "state": "upcoming", "start_height": 0, "stop_height": nil,
		"binary": "/opt/rollup", "migration": "none", "completed_at": nil, "proof": "",
	}
	maps.Copy(v, changes)
	return v
}

// site serves the page, and a status that a test can change.
type site struct {
	*httptest.Server
	mu     sync.Mutex
	first  Report
	status []byte // nil: it breaks connections
	asked  int
	hangs  atomic.Bool // requests get no answer
}

func serve(t *testing.T, status object) *site {
	t.Helper()
	s := &site{}
	s.set(status)
	require.NoError(t, json.Unmarshal(s.status, &s.first))
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.page)
	mux.HandleFunc("/behind/a/proxy/{$}", s.page)
	mux.HandleFunc("/status", s.answer)
	mux.HandleFunc("/behind/a/proxy/status", s.answer)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// page is served as a run serves it, with the first status that it had.
func (s *site) page(w http.ResponseWriter, _ *http.Request) { servePage(w, s.first) }

func (s *site) answer(w http.ResponseWriter, r *http.Request) {
	if s.hangs.Load() {
		<-r.Context().Done()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.status == nil {
		panic(http.ErrAbortHandler)
	}
	// The page corrects its clock by this.
	w.Header().Set("Date", "Mon, 04 May 2020 12:10:00 GMT")
	_, _ = w.Write(s.status)
}

// set changes the status; with nil, the site stops answering.
func (s *site) set(status object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = nil
	if status != nil {
		s.status, _ = json.Marshal(status) // there is nothing in it that cannot be
	}
}

// times counts the requests for the status.
func (s *site) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// One browser shows all pages, because starting it is what takes long.
func TestPageShowsTheStatusInARealBrowser(t *testing.T) {
	b := newBrowser(t)
	b.cdp(t, "Emulation.setTimezoneOverride", object{"timezoneId": "Europe/Berlin"}, nil)
	for name, test := range map[string]func(t *testing.T, b *browser){
		"a run near an upgrade":               showsARun,
		"each phase has words":                showsEachPhase,
		"all that can be wrong":               showsWhatIsWrong,
		"what is not known":                   showsWhatIsNotKnown,
		"the end of the last version":         showsTheEnd,
		"a migration that runs":               showsAMigration,
		"what comes before an upgrade":        showsWhatComesBeforeAnUpgrade,
		"forty versions":                      showsALongPlan,
		"hostile names stay text":             keepsNamesText,
		"it refreshes itself":                 refreshesItself,
		"an entrypoint that is gone":          showsThatNobodyAnswers,
		"a hidden page asks less often":       asksLessOftenWhenHidden,
		"without scripts it shows the status": worksWithoutScripts,
		"behind a path of a proxy":            worksBehindAPath,
		"the policy lets nothing else run":    letsNothingElseRun,
		"what a run says":                     showsWhatARunSays,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

// shown opens a page with this status, runs the checks on it, and then sees that the page asked nobody else and
// complained of nothing.
func shown(t *testing.T, b *browser, status object, checks func(s *site)) {
	t.Helper()
	s := serve(t, status)
	b.open(t, s.URL+"/")
	b.await(t, "!document.querySelector('main').hidden")
	checks(s)
	require.Empty(t, b.log(t, "browser"), "the page complained")
	requiresNobodyElse(t, b, s.URL)
}

func requiresNobodyElse(t *testing.T, b *browser, url string) {
	t.Helper()
	requests := b.requests(t)
	require.Contains(t, requests, url+"/status")
	for _, request := range requests {
		require.True(t, request == url+"/" || request == url+"/status" || strings.HasPrefix(request, "data:image/svg") || request == "about:blank", request)
	}
}

// rows gives the classes and the text of each row of a timeline.
func rows(t *testing.T, b *browser, list string) (all []string) {
	t.Helper()
	b.eval(t, fmt.Sprintf(`[...document.querySelectorAll("#%s > li")].map(e => e.className + ": " + e.innerText.replaceAll(/\s+/g, " "))`, list), &all)
	return all
}

func showsARun(t *testing.T, b *browser) {
	shown(t, b, canned(nil), func(*site) {
		b.screenshot(t, "page-wide", 1100)
		b.screenshot(t, "page-narrow", 360)
		require.Equal(t, "Running v1", b.text(t, "phase"))
		require.Equal(t, "for 9 min 55 s, since 4 May 2020, 12:00:05 UTC", b.text(t, "since"))
		require.Equal(t, []string{
			"completed: ✓ v0 completed heights 0 to 100 completed 4 May 2020, 11:58:00 UTC, proof: durable height",
			"migration completed: ✓ Migration completed in 1.5 s",
			"current: ▶ v1 current heights 101 to 220",
			"migration due: ◆ Migration due",
			"upcoming: v2 upcoming from height 221",
		}, rows(t, b, "versions"))
		for id, want := range map[string]string{
			"height": "160 read 0.4 s ago", "rate": "4.00", "remaining": "60", "when": "Upgrade in about 1 min 15 s at 4 May 2020, 12:11:15 UTC",
			"next": "Next: v2, with a migration", "percent": "50 %", "from": "from height 101", "to": "after height 220",
			"alive": "✓ yes", "ready": "✓ yes", "node": "pid 17, up for 9 min 55 s, start 2", "restarts": "1",
			"checkpoint": "/data/checkpoint.json, written 9 min 56 s ago", "preflight": "Preflight of v2 ✓ no problems found, checked 30 s ago",
			"runs": "To v1: exited 0 after 1.5 s started 4 May 2020, 12:00:02 UTC", "program": "entrypoint v1.2.3, pid 1, up for 10 min 0 s",
			"who": "node-7 · leader", "stopping": "", "hold": "", "put-back": "", "undo": "none", "unasked": "", "failure": "", "gone": "", "earlier": "",
		} {
			require.Equal(t, want, b.text(t, id), id)
		}
		var title, text, current string
		var value float64
		b.eval(t, "document.title", &title)
		b.eval(t, `document.getElementById("progress").getAttribute("aria-valuetext")`, &text)
		b.eval(t, `document.getElementById("progress").value`, &value)
		b.eval(t, `document.querySelector("[aria-current=step] b").innerText`, &current)
		require.Equal(t, "node-7 · leader · v1 running 160", title)
		require.Equal(t, "50 %, 60 blocks left", text)
		require.Equal(t, 50.0, value)
		require.Equal(t, "v1", current)
		for css, want := range map[string][2]string{
			"#progress": {"progressbar", "Next: v2, with a migration"}, "#phase": {"heading", "Running v1"}, "[role=status]": {"status", ""},
			"#versions": {"list", ""}, "main": {"main", ""}, "section:has(#versions)": {"region", "Versions"},
		} {
			role, label := b.accessible(t, css)
			require.Equal(t, want, [2]string{role, label}, css)
		}
		requiresContrast(t, b)
		b.dark(t, "dark")
		b.screenshot(t, "page-dark", 1100)
		requiresContrast(t, b)
		b.dark(t, "light")
	})
}

func (b *browser) dark(t *testing.T, scheme string) {
	t.Helper()
	b.cdp(t, "Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// requiresContrast sees that all text stands out from what is behind it, by 4.5 to 1 as WCAG 2 wants.
func requiresContrast(t *testing.T, b *browser) {
	t.Helper()
	var weak []string
	b.eval(t, `(() => {
		const rgb = c => c.match(/[\d.]+/g).map(Number);
		const light = c => rgb(c).slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
		const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] !== 0) return c } return "rgb(255, 255, 255)" };
		return [...document.body.querySelectorAll("*")].filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
			const a = light(getComputedStyle(e).color), b = light(behind(e)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
			return ratio < 4.5 ? ratio.toFixed(2) + ": " + e.outerHTML.slice(0, 80) : "";
		}).filter(Boolean);
	})()`, &weak)
	require.Empty(t, weak)
}

func showsEachPhase(t *testing.T, b *browser) {
	shown(t, b, canned(nil), func(s *site) {
		for phase, want := range map[string]string{
			"preparing": "Preparing v1: nothing has been started yet", "migrating": "Migrating the state to v1",
			"starting": "Starting v1: no height reported yet", "asking": "Asking the node of v1 for its durable height",
			"handing_over": "Handing over at v1: between two processes",
			"held":         "Held at v1: nothing is started", "copying": "Making an undo point of v1", "hook": "Running the hook before the upgrade of v1",
			"finished": "Finished: v1 has reached its stop height", "failed": "Failed at v1", "some_new_one": "some new one v1", "running": "Running v1",
		} {
			s.set(canned(object{"phase": phase, "node": nil}))
			b.eval(t, "void refresh()", nil) // its own timer would take ten seconds for all
			b.await(t, `document.getElementById("phase").textContent === `+fmt.Sprintf("%q", want))
		}
	})
}

func showsWhatIsWrong(t *testing.T, b *browser) {
	next := canned(nil)["next_upgrade"].(object)
	next["preflight"] = object{"checked_at": "2020-05-04T12:09:30Z", "problems": []string{"v2: /opt/v2/rollup is missing; add it", "v2: no port; set one"}}
	status := canned(object{
		"stopping": true, "cannot_be_asked": true, "alive": false, "not_alive_because": "no new height for 5m0s, since height 160",
		"ready": false, "not_ready_because": "the node does not answer", "next_upgrade": next,
		"last_failure":  object{"at": "2020-05-04T12:08:00Z", "text": "the node exited 101\nit is started again"},
		"state_damaged": true, "leftovers": []object{{"pid": 77, "command": "worker", "since": "2020-05-04T12:09:00Z"}},
		"signals_undelivered": []object{{"signal": "SIGTERM", "count": 2}},
		"hold_file":           "/data/hold", "undo_points_put_back": 1, "no_undo_point_because": "the file system has no reflinks",
	})
	shown(t, b, status, func(s *site) {
		b.screenshot(t, "page-problems", 1100)
		for id, want := range map[string]string{
			"alive": "✗ no: no new height for 5m0s, since height 160", "ready": "✗ no: the node does not answer",
			"preflight": "Preflight of v2 ✗ 2 problems, checked 30 s ago – v2: /opt/v2/rollup is missing; add it – v2: no port; set one",
			"failure":   "! Last failure, 2 min 0 s ago, 4 May 2020, 12:08:00 UTC the node exited 101 it is started again",
			"unasked":   "! Node cannot be asked It does not report its durable height. At the stop height, an operator must declare the version complete.",
			"stopping":  "! Stopping A stop was requested. The entrypoint ends as soon as its processes have ended.",
			"damaged": "✗ The state is damaged The node reports it. A killed node can leave such a state, and a restart does not help. " +
				"Restore a snapshot of the whole directory, or run entrypoint reset and resync.",
			"leftovers":   "! Waiting for leftover processes pid 77 (worker), for 1 min 0 s",
			"undelivered": "! Signals could not be delivered SIGTERM: 2",
			"hold":        "! Hold Nothing follows until entrypoint resume removes /data/hold",
			"put-back":    "✗ An undo point was put back An upgrade failed. The state from before it is in place again, at its stop height.",
			"undo":        "✗ none: the file system has no reflinks",
		} {
			require.Equal(t, want, b.text(t, id), id)
		}
		requiresContrast(t, b)
		status["phase"] = "failed"
		s.set(status)
		b.awaitText(t, "phase", "Failed at v1")
		require.Contains(t, b.text(t, "failure"), "✗ Failed, 2 min 0 s ago")
		requiresContrast(t, b)
		b.dark(t, "dark")
		requiresContrast(t, b)
		b.screenshot(t, "page-failed-dark", 1100)
		b.dark(t, "light")
	})
}

func showsWhatIsNotKnown(t *testing.T, b *browser) {
	next := canned(nil)["next_upgrade"].(object)
	maps.Copy(next, object{"remaining_blocks": nil, "eta_seconds": nil, "eta_at": nil, "preflight": nil})
	status := canned(object{
		"phase": "starting", "height": nil, "durable_height": nil, "blocks_per_second": nil, "next_upgrade": next, "node": nil, "checkpoint": nil, "migrations": []object{},
	})
	shown(t, b, status, func(s *site) {
		b.screenshot(t, "page-not-known", 700)
		for id, want := range map[string]string{
			"height": "not known", "rate": "not known", "remaining": "not known", "eta": "not known", "percent": "progress not known",
			"preflight": "Preflight of v2 not checked yet", "node": "not running", "checkpoint": "none", "migrations": "",
		} {
			require.Equal(t, want, b.text(t, id), id)
		}
		var unknown bool
		b.eval(t, `document.getElementById("progress").matches(":indeterminate")`, &unknown)
		require.True(t, unknown)
		s.set(canned(object{"next_upgrade": nil}))
		b.awaitText(t, "height", "160")
		require.Empty(t, b.text(t, "upgrade")+b.text(t, "left")+b.text(t, "when")+b.text(t, "preflight"))
	})
}

func showsTheEnd(t *testing.T, b *browser) {
	next := canned(nil)["next_upgrade"].(object)
	maps.Copy(next, object{"version_index": nil, "version": "", "migration": false, "preflight": nil, "remaining_blocks": 1})
	shown(t, b, canned(object{"next_upgrade": next}), func(*site) {
		require.Equal(t, "Next: the end of the plan", b.text(t, "next"))
		require.Contains(t, b.text(t, "when"), "End in about 1 min 15 s")
		require.Equal(t, "99.1 %", b.text(t, "percent"))
		require.Empty(t, b.text(t, "preflight"))
	})
}

func showsWhatComesBeforeAnUpgrade(t *testing.T, b *browser) {
	next := canned(nil)["next_upgrade"].(object)
	next["hook"] = true
	held := canned(object{"phase": "held", "node": nil, "hold_file": "/data/hold", "next_upgrade": next, "height": nil, "durable_height": 220})
	shown(t, b, held, func(s *site) {
		b.screenshot(t, "page-held", 700)
		require.Equal(t, "! Hold Nothing follows until entrypoint resume removes /data/hold", b.text(t, "hold"))
		require.Equal(t, "Next: v2, with a hook and a migration", b.text(t, "next"))
		require.Equal(t, "220 or more: durable, when asked", b.text(t, "height"))
		held["versions"].([]object)[1]["completed_at"] = "2020-05-04T12:09:00Z"
		s.set(held)
		b.awaitText(t, "height", "durable, confirmed")
		next["migration"] = false
		s.set(canned(object{
			"phase": "copying", "node": nil, "next_upgrade": next,
			"copying": object{"method": "copy", "done_bytes": 1_500_000_000, "total_bytes": 2_000_000_000_000, "begun_at": "2020-05-04T12:09:30Z", "eta_seconds": 12.3},
		}))
		b.awaitText(t, "undo", "being made: 1.5 GB of 2.0 TB, about 12 s left")
		require.Equal(t, "Next: v2, with a hook", b.text(t, "next"))
		require.Empty(t, b.text(t, "hold"))
		undo := object{
			"directory": "/data/state.before-v2", "version_index": 1, "version": "v1", "for_version_index": 2, "for_version": "v2",
			"height": 220, "method": "reflink", "bytes": 3_300_000, "created_at": "2020-05-04T12:09:00Z",
		}
		s.set(canned(object{
			"phase": "hook", "node": nil, "undo_point": undo, "hook": object{"version_index": 2, "version": "v2", "pid": 9, "started_at": "2020-05-04T12:09:30Z"},
		}))
		b.awaitText(t, "undo", "v1 at height 220, 3.3 MB (reflink), made 1 min 0 s ago: /data/state.before-v2")
		require.Equal(t, "hook, pid 9, for 30 s", b.text(t, "node"))
		requiresContrast(t, b)
	})
}

func showsAMigration(t *testing.T, b *browser) {
	status := canned(object{
		"phase": "migrating", "height": nil, "blocks_per_second": nil, "node": nil, "ready": false, "not_ready_because": "a migration is running",
		"migrations": []object{{"version_index": 1, "started_at": "2020-05-04T12:00:02Z", "seconds": 61.0, "exit": ""}},
	})
	maps.Copy(status["next_upgrade"].(object), object{"remaining_blocks": nil, "eta_seconds": nil, "eta_at": nil})
	status["versions"].([]object)[1]["migration"] = "running"
	shown(t, b, status, func(*site) {
		b.screenshot(t, "page-migrating", 1100)
		require.Contains(t, b.text(t, "versions"), "▶ Migration running ▶ v1")
		require.Contains(t, b.text(t, "runs"), "To v1: ▶ running for 1 min 1 s")
	})
}

func showsALongPlan(t *testing.T, b *browser) {
	status := canned(object{"version_index": 35, "version": "v35"})
	var versions []object
	for i := range 40 {
		v := cannedVersion(i, object{"start_height": i * 1000000, "stop_height": i*1000000 + 999999, "migration": "due"})
		if i < 35 {
			maps.Copy(v, object{"state": "completed", "migration": "completed"})
		} else if i == 35 {
			maps.Copy(v, object{"state": "current", "migration": "completed"})
		}
		versions = append(versions, v)
	}
	status["versions"] = versions
	status["height"].(object)["blocks"] = 35_250_000
	maps.Copy(status["next_upgrade"].(object), object{
		"version_index": 36, "version": "v36", "stop_height": 35_999_999, "remaining_blocks": 749_999, "eta_seconds": 187_499.75, "eta_at": "2020-05-06T16:14:59Z",
	})
	shown(t, b, status, func(*site) {
		b.screenshot(t, "page-long-plan", 1100)
		require.Equal(t, "25 %", b.text(t, "percent"))
		require.Equal(t, "Upgrade in about 2 days 4 h at 6 May 2020, 16:14:59 UTC", b.text(t, "when"))
		require.Equal(t, "33 earlier versions", b.text(t, "earlier"))
		require.Len(t, rows(t, b, "earlier-versions"), 66)
		late := rows(t, b, "versions")
		require.Len(t, late, 14)
		require.Equal(t, "current: ▶ v35 current heights 35,000,000 to 35,999,999", late[5])
		// What a reader has opened stays open, and nothing is wider than a phone.
		b.eval(t, `document.querySelector("summary").click()`, nil)
		require.Contains(t, b.text(t, "earlier"), "v0 completed heights 0 to 999,999")
		requiresNoSideways(t, b)
	})
}

// requiresNoSideways sees that on a small phone nothing is beside the screen.
func requiresNoSideways(t *testing.T, b *browser) {
	t.Helper()
	b.cdp(t, "Emulation.setDeviceMetricsOverride", object{"width": 320, "height": 600, "deviceScaleFactor": 1, "mobile": true}, nil)
	defer b.cdp(t, "Emulation.clearDeviceMetricsOverride", object{}, nil)
	var width int
	b.eval(t, "document.documentElement.scrollWidth", &width)
	require.Equal(t, 320, width)
}

func keepsNamesText(t *testing.T, b *browser) {
	hostile := `<img src=x onerror="window.owned=1"><script>window.owned=1</script>&amp;` + "\u202eevil" + strings.Repeat("x", 200)
	next := canned(nil)["next_upgrade"].(object)
	next["version"], next["preflight"] = hostile, object{"checked_at": "2020-05-04T12:09:30Z", "problems": []string{hostile}}
	status := canned(object{
		"version": hostile, "not_ready_because": hostile, "ready": false, "not_alive_because": hostile, "alive": false, "next_upgrade": next,
		"last_failure": object{"at": "2020-05-04T12:08:00Z", "text": hostile}, "checkpoint": object{"file": hostile, "updated_at": nil},
		"entrypoint": object{"version": hostile, "host": hostile, "pid": 1, "started_at": "2020-05-04T12:00:00Z"}, "role": hostile,
		"migrations": []object{{"version_index": 1, "started_at": "2020-05-04T12:00:02Z", "seconds": 1.5, "exit": hostile}},
		"leftovers":  []object{{"pid": 77, "command": hostile, "since": "2020-05-04T12:09:00Z"}},
	})
	for _, v := range status["versions"].([]object) {
		maps.Copy(v, object{"version": hostile, "proof": hostile, "completed_at": "2020-05-04T12:00:02Z"})
	}
	shown(t, b, status, func(s *site) {
		b.screenshot(t, "page-hostile", 500)
		for _, id := range []string{
			"who", "phase", "next", "versions", "alive", "ready", "failure", "preflight-title", "problems", "checkpoint", "runs", "program", "left-behind",
		} {
			var text string
			b.eval(t, fmt.Sprintf("document.getElementById(%q).textContent", id), &text)
			require.Contains(t, text, hostile, id)
		}
		requiresNoSideways(t, b)
		// A phase and a state come from the program itself, but they need not be trusted either.
		status["phase"], status["versions"].([]object)[0]["state"] = hostile, hostile
		s.set(status)
		b.awaitText(t, "phase", "evil")
		var owned bool
		b.eval(t, `"owned" in window || document.querySelectorAll("img, script").length > 1`, &owned)
		require.False(t, owned)
	})
}

func refreshesItself(t *testing.T, b *browser) {
	shown(t, b, canned(nil), func(s *site) {
		b.eval(t, `window.kept = [...document.querySelectorAll("#versions > li")]`, nil)
		s.set(canned(object{"height": object{"blocks": 1234567, "read_at": "2020-05-04T12:10:00Z", "age_seconds": 0.4}}))
		b.awaitText(t, "height", "1,234,567")
		var kept bool
		b.eval(t, `window.kept.length === 5 && window.kept.every(e => e.isConnected)`, &kept)
		require.True(t, kept, "what had not changed was made anew")
	})
}

func showsThatNobodyAnswers(t *testing.T, b *browser) {
	s := serve(t, canned(nil))
	b.open(t, s.URL+"/")
	b.awaitText(t, "phase", "Running v1")
	s.set(nil)
	b.awaitText(t, "gone", "The entrypoint has not answered since")
	b.screenshot(t, "page-gone", 1100)
	require.Regexp(t, `^✗ No answer The entrypoint has not answered since (\d+ \w+ \d+, )?\d\d:\d\d:\d\d UTC \(Failed to fetch\)\. This page shows its last answer`, b.text(t, "gone"))
	role, _ := b.accessible(t, "#gone")
	require.Equal(t, "alert", role)
	var grey, title string
	b.eval(t, `getComputedStyle(document.querySelector("main")).filter`, &grey)
	require.Equal(t, "grayscale(1)", grey)
	b.eval(t, "document.title", &title)
	require.Equal(t, "node-7 · leader · no answer", title)
	require.Contains(t, b.text(t, "height"), "160", "what was known is gone")
	s.set(canned(object{"phase": "finished"}))
	b.awaitText(t, "phase", "Finished")
	b.await(t, `document.getElementById("gone").hidden && !document.body.classList.contains("gone")`)

	// Nor does it wait forever. It gives up after six seconds, here sooner.
	b.eval(t, `(() => { const real = setTimeout; window.setTimeout = (f, ms) => real(f, ms === 6000 ? 50 : ms) })()`, nil)
	s.hangs.Store(true)
	b.awaitText(t, "gone", "(no answer in 6 s)")
	s.hangs.Store(false)

	// A page that never had an answer shows what the server knew.
	s.set(nil)
	b.open(t, s.URL+"/")
	b.awaitText(t, "gone", "has not answered since")
	var hidden bool
	b.eval(t, `document.querySelector("main").hidden`, &hidden)
	require.True(t, hidden)
	require.Equal(t, "v1 (version 1): running", b.text(t, "phase"))
	requiresNobodyElse(t, b, s.URL)
}

func asksLessOftenWhenHidden(t *testing.T, b *browser) {
	shown(t, b, canned(nil), func(s *site) {
		// The page's own timer, copied to an attribute, because a change of that is an event.
		b.eval(t, `(() => { const real = setTimeout; window.setTimeout = (f, ms) => { if (f === refresh) document.body.dataset.pause = ms; return real(f, ms) } })()`, nil)
		b.await(t, `document.body.dataset.pause === "1000"`)
		b.eval(t, `Object.defineProperty(document, "hidden", {value: true, configurable: true})`, nil)
		b.await(t, `document.body.dataset.pause === "10000"`)
		s.set(canned(object{"phase": "finished"}))
		b.eval(t, `delete document.hidden && document.dispatchEvent(new Event("visibilitychange"))`, nil)
		b.awaitText(t, "phase", "Finished")
		b.await(t, `document.body.dataset.pause === "1000"`)
	})
}

func worksWithoutScripts(t *testing.T, b *browser) {
	b.cdp(t, "Emulation.setScriptExecutionDisabled", object{"value": true}, nil)
	defer b.cdp(t, "Emulation.setScriptExecutionDisabled", object{"value": false}, nil)
	s := serve(t, canned(nil))
	b.open(t, s.URL+"/")
	b.screenshot(t, "page-without-scripts", 700)
	var text string
	b.eval(t, `document.querySelector("noscript").innerText`, &text)
	require.Contains(t, text, "Reload it to see the newest state. status has the same as JSON.")
	require.Contains(t, text, "node-7 · leader · v1 (version 1): running for ")
	require.Contains(t, strings.Join(strings.Fields(text), " "), "v2, with a migration, after height 220: 60 blocks left, in about 1 min 15 s")
	require.Regexp(t, `>  v1 +current +101 to 220 +completed`, text)
	require.Equal(t, "node-7 · leader", b.text(t, "who"))
	require.Equal(t, "v1 (version 1): running", b.text(t, "phase"))
	require.Regexp(t, `^as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$`, b.text(t, "since"))
	var title string
	b.eval(t, "document.title", &title)
	require.Equal(t, "node-7 · leader · v1 (version 1): running", title)
	requiresContrast(t, b)
	require.Zero(t, s.times())
}

func worksBehindAPath(t *testing.T, b *browser) {
	s := serve(t, canned(nil))
	b.open(t, s.URL+"/behind/a/proxy/")
	b.awaitText(t, "phase", "Running v1")
	requests := b.requests(t)
	require.Contains(t, requests, s.URL+"/behind/a/proxy/status")
	require.NotContains(t, requests, s.URL+"/status")
	var links []string
	b.eval(t, `[...document.querySelectorAll("footer a")].map(a => a.href)`, &links)
	for i, route := range []string{"status", "metrics", "healthz", "readyz"} {
		require.Equal(t, s.URL+"/behind/a/proxy/"+route, links[i])
	}
}

// The other statuses are made for the page. This one is as a run serves it.
func showsWhatARunSays(t *testing.T, b *browser) {
	s := newStatus(running(), sovereign.Readiness{Leads: true})
	b.open(t, "http://"+serving(t, s)+"/")
	b.awaitText(t, "phase", "Running v1")
	require.Equal(t, "✓ yes ✓ yes", b.text(t, "alive")+" "+b.text(t, "ready"))
	require.Regexp(t, `^180 read \d\.\d s ago$`, b.text(t, "height"))
	require.Equal(t, "40 0.50", b.text(t, "remaining")+" "+b.text(t, "rate"))
	require.Contains(t, b.text(t, "when"), "Upgrade in about 1 min ")
	require.Contains(t, b.text(t, "preflight"), "Preflight of v2 ✗ 1 problem")
	require.Contains(t, b.text(t, "failure"), "the checkpoint cannot be written")
	require.Contains(t, b.text(t, "runs"), "To v1: exited 0 after 4 min 0 s")
	require.Contains(t, b.text(t, "versions"), "proof: durable height ✓ Migration completed in 4 min 0 s ▶ v1 current heights 101 to 220")

	state := running()
	state.Phase, state.Process.Asked, state.Stopping = sequencer.PhaseAsking, true, true
	s.Observe(state)
	b.awaitText(t, "phase", "Asking the node of v1 for its durable height")
	require.Contains(t, b.text(t, "stopping"), "A stop was requested")
	require.Equal(t, "✗ no: a stop was requested", b.text(t, "ready"))
	require.Empty(t, b.log(t, "browser"), "the page complained")
}

// Markup is set into the page here, as if a mistake of the page had let it in.
func letsNothingElseRun(t *testing.T, b *browser) {
	other := serve(t, canned(nil))
	s := serve(t, canned(nil))
	b.open(t, s.URL+"/")
	b.awaitText(t, "phase", "Running v1")
	b.eval(t, fmt.Sprintf(`(() => {
		document.addEventListener("securitypolicyviolation", e => document.body.dataset[e.effectiveDirective.replaceAll("-", "")] = "refused");
		const script = document.createElement("script");
		script.textContent = "window.owned = 1";
		document.body.append(script);
		document.body.insertAdjacentHTML("beforeend", '<img src="%[1]s/image" onerror="window.owned = 1"><p style="color: red">x</p>');
		fetch("%[1]s/status").catch(() => {});
	})()`, other.URL), nil)
	b.await(t, `["scriptsrcelem", "imgsrc", "stylesrcattr", "connectsrc", "scriptsrcattr"].every(d => document.body.dataset[d] === "refused")`)
	var owned bool
	b.eval(t, `"owned" in window`, &owned)
	require.False(t, owned)
	require.Zero(t, other.times())
}

func TestPageIsServedWithAPolicyThatAllowsOnlyItself(t *testing.T) {
	recorder := httptest.NewRecorder()
	newStatus(running(), sovereign.Readiness{Leads: true}).Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, http.StatusOK, recorder.Code)
	require.Equal(t, "text/html; charset=utf-8", recorder.Header().Get("Content-Type"))
	require.Equal(t, "no-store", recorder.Header().Get("Cache-Control"))
	require.Equal(t, "nosniff", recorder.Header().Get("X-Content-Type-Options"))
	require.Equal(t, "no-referrer", recorder.Header().Get("Referrer-Policy"))
	policy := recorder.Header().Get("Content-Security-Policy")
	require.Regexp(t, `^default-src 'none'; connect-src 'self'; img-src data:; script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}'; `+
		`base-uri 'none'; form-action 'none'; frame-ancestors 'none'$`, policy)
}

// What the page shows before scripts run, or without them, is text, whatever the names are.
func TestPageHasTheStateInItsMarkupEscaped(t *testing.T) {
	state := running()
	state.Failure.What = `</pre><script>alert(1)</script>`
	s := newStatus(state, sovereign.Readiness{Synced: true})
	s.host, s.Plan.Versions[1].Name = `"a<b>&`, "{{text}}\u202e<i>"
	recorder := httptest.NewRecorder()
	s.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil))
	body := recorder.Body.String()
	headline := "\"a&lt;b&gt;&amp; · replica · {{text}}\\u202e&lt;i&gt; (version 1): running"
	require.Contains(t, body, "<title>"+headline+"</title>")
	require.Contains(t, body, `<pre class="card">`+headline+" for 1 h 0 min\nalive     yes\nready     yes\n")
	require.Contains(t, body, ": &lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;")
	require.Equal(t, 1, strings.Count(body, "<script"))
	require.NotContains(t, body, "<i>")
}

func TestPageIsSmallAndSetsNoMarkup(t *testing.T) {
	require.Less(t, len(page), 19_000, "bytes")
	for _, setter := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("} {
		require.NotContains(t, page, setter)
	}
}
