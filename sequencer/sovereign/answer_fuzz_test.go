package sovereign

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// answers are whole answers, as they pass over the wire.
var answers = []string{
	"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 19\r\nconnection: close\r\n\r\n{\"value\":[123,456]}",
	"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"value\":\r\na;x=y\r\n[123,456]}\r\n0\r\n\r\n",
	"HTTP/1.0 200 OK\r\n\r\n{\"data\":{\"value\":[123,456]},\"meta\":{}}",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"value\":null}",
	"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"value\":[123,456]}",
	"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"value\":[1,2]}, more",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n{\"value\":[123,456]}\r\n",
	"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 19\r\n\r\n{\"value\":[123,456]}",
	"HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\nContent-Length: 19\r\n\r\n{\"value\":[123,456]}",
	"HTTP/1.1 204 No Content\r\n\r\n{\"value\":[123,456]}",
	"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{\"value\":[1,2]}",
	"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nContent-Length: 15\r\n\r\n{\"value\":[1,2]}",
	"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08",
	"HTTP/2.0 200 OK\r\n\r\n{\"value\":[1,2]}",
	"SSH-2.0-OpenSSH_9.2\r\n",
	"\x15\x03\x01\x00\x02\x02\x16",
	"HTTP/1.1 200 OK\r\n",
	"",
}

// A height is only read from a whole answer with status 200, and the query ends in time, whatever answers.
func FuzzHeightAnswer(f *testing.F) {
	for i, answer := range answers {
		f.Add([]byte(answer), uint8(i*7), i%3 == 0)
	}
	f.Fuzz(func(t *testing.T, answer []byte, piece uint8, hangs bool) {
		synctest.Test(t, func(t *testing.T) {
			height, err := ask(t, answer, int(piece)+1, hangs)
			if err != nil {
				if height != 0 {
					t.Fatalf("height %d with error %v", height, err)
				}
				return
			}
			body, whole := bodyOf(answer, hangs)
			if !whole {
				t.Fatalf("height %d was read of %q, which is no whole answer of status 200", height, answer)
			}
			if want, err := parseHeights(body); err != nil || want != height {
				t.Fatalf("height %d was read of %q, whose body is %q: %d, %v", height, answer, body, want, err)
			}
		})
	})
}

// ask has a client ask a node that answers in pieces, and then closes the connection or does nothing any more.
func ask(t *testing.T, answer []byte, piece int, hangs bool) (uint64, error) {
	t.Helper()
	client := NewClient(Config{Hosts: []string{"127.0.0.1"}, Port: 12346}, "")
	gone := make(chan struct{})
	client.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer close(gone)
			answerWith(theirs, answer, piece, hangs)
		}()
		return ours, nil
	}
	began := time.Now()
	height, err := client.Height(t.Context())
	if took := time.Since(began); took > queryTimeout {
		t.Fatalf("the question took %s", took)
	}
	<-gone // the client has closed its end, or a node that hangs would be here for ever
	return height, err
}

func answerWith(conn net.Conn, answer []byte, piece int, hangs bool) {
	defer conn.Close()
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	for len(answer) > 0 {
		n, err := conn.Write(answer[:min(piece, len(answer))])
		if err != nil {
			return
		}
		answer = answer[n:]
	}
	if hangs {
		_, _ = io.Copy(io.Discard, conn)
	}
}

var (
	informational = regexp.MustCompile(`\AHTTP/[0-9]\.[0-9] 1[0-9][0-9][^\n]*\n(?:[^\n]*[^\r\n][^\n]*\n)*\r?\n`)
	success       = regexp.MustCompile(`\AHTTP/[0-9]\.[0-9] +200(?: [^\n]*)?\r?\n`)
	blankLine     = regexp.MustCompile(`\n\r?\n`)
	lengthHeader  = regexp.MustCompile(`(?im)^content-length:[ \t]*([0-9]+)[ \t]*\r?$`)
	chunkedHeader = regexp.MustCompile(`(?im)^transfer-encoding:[ \t]*chunked[ \t]*\r?$`)
	chunkHead     = regexp.MustCompile(`\A([0-9a-fA-F]+)[^\n]*\n`)
)

// bodyOf takes an answer apart by the letters of RFC 9112, section 6. whole is false if it does not say 200 or is
// not complete.
func bodyOf(answer []byte, hangs bool) (body []byte, whole bool) {
	for range 6 {
		answer = answer[len(informational.Find(answer)):]
	}
	end := blankLine.FindIndex(answer)
	if !success.Match(answer) || end == nil {
		return nil, false
	}
	head, body := answer[:end[0]+1], answer[end[1]:]
	if chunkedHeader.Match(head) {
		return chunks(body)
	}
	m := lengthHeader.FindSubmatch(head)
	if m == nil {
		return body, !hangs // it ends with the connection
	}
	length, err := strconv.Atoi(string(m[1]))
	if err != nil || length > len(body) {
		return nil, false
	}
	return body[:length], true
}

// chunks joins the chunks up to the one of length 0.
func chunks(text []byte) (body []byte, whole bool) {
	for {
		m := chunkHead.FindSubmatch(text)
		if m == nil {
			return nil, false
		}
		size, err := strconv.ParseUint(string(m[1]), 16, 31)
		text = text[len(m[0]):]
		switch {
		case err != nil || int(size) > len(text):
			return nil, false
		case size == 0:
			return body, true
		}
		body = append(body, text[:size]...)
		text = bytes.TrimPrefix(bytes.TrimPrefix(text[size:], []byte("\r")), []byte("\n"))
	}
}
