package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the two kinds of Compose print for the same file.
const (
	resolvedByOne = `networks:
  nodes: {}
services:
  da:
    build: {context: /src}
    image: testnet
    ports:
    - 127.0.0.1:26658:26658/tcp
    volumes:
    - da:/data:rw
  grafana:
    image: grafana
    profiles:
    - monitoring
  sequencer:
    container_name: the-sequencer
    depends_on:
      da:
        condition: service_healthy
    environment:
      A: "1"
    image: testnet
    ports:
    - 127.0.0.1:9848:9848/tcp
    volumes:
    - sequencer:/data:rw
version: '3.9'
volumes:
  da: {}
  sequencer: {}
`
	resolvedByTwo = `name: rehearsal
services:
  da:
    image: testnet
    ports:
      - mode: ingress
        target: 26658
        published: "26658"
    volumes:
      - type: volume
        source: da
        target: /data
        volume: {}
  sequencer:
    depends_on:
      da:
        condition: service_healthy
        required: true
    environment:
      - A=1
    image: testnet
    ports:
      - mode: ingress
        host_ip: 127.0.0.1
        target: 9848
        published: "9848"
        protocol: tcp
    volumes:
      - type: volume
        source: sequencer
        target: /data
        volume: {}
volumes:
  da:
    name: rehearsal_da
  sequencer:
    name: rehearsal_sequencer
`
)

func resolve(t *testing.T, text string) *composeFile {
	t.Helper()
	f, err := readComposeFile(text, ports{9848, 12346})
	require.NoError(t, err)
	f.isolate()
	return f
}

func TestProjectTouchesNoOtherOfTheSameFile(t *testing.T) {
	for name, text := range map[string]string{"docker-compose 1": resolvedByOne, "Compose v2": resolvedByTwo} {
		f := resolve(t, text)
		require.Equal(t, []string{"da"}, f.others([]string{"sequencer"}), name)
		require.NoError(t, f.change("sequencer", nodeChange{image: "mine", plan: "/tmp/plan.json", published: ports{20001, 20002}}))
		out, err := f.text()
		require.NoError(t, err)
		var seen struct {
			Name     *string
			Services map[string]struct {
				Image         string
				Ports         []any
				Build         any
				Environment   map[string]string
				Volumes       []any
				ContainerName *string `json:"container_name"`
				DependsOn     any     `json:"depends_on"`
			}
			Volumes map[string]any
		}
		require.NoError(t, json.Unmarshal(out, &seen), name)
		require.Nil(t, seen.Name, name)
		require.NotContains(t, seen.Services, "grafana", name)
		da, sequencer := seen.Services["da"], seen.Services["sequencer"]
		require.Empty(t, da.Ports, name)
		require.Nil(t, da.Build, name)
		require.Equal(t, "testnet", da.Image, name)
		require.Nil(t, sequencer.ContainerName, name)
		require.Nil(t, sequencer.DependsOn, name)
		require.Equal(t, "mine", sequencer.Image, name)
		require.Equal(t, []any{"127.0.0.1:20001:9848", "127.0.0.1:20002:12346"}, sequencer.Ports, name)
		require.Len(t, sequencer.Volumes, 2, name)
		require.Equal(t, "/tmp/plan.json:/rehearsal/manager.json:ro", sequencer.Volumes[1], name)
		require.Equal(t, map[string]string{
			"A": "1", "ENTRYPOINT_CONFIG": "/rehearsal/manager.json", "ENTRYPOINT_LISTEN": "0.0.0.0:9848",
			"ENTRYPOINT_LOG_FORMAT": "json", "ENTRYPOINT_LOG_LEVEL": "info",
		}, sequencer.Environment, name)
		require.Len(t, seen.Volumes, 2, name)
	}
}

func TestWhatIsNotTheRehearsalsOwnIsRefused(t *testing.T) {
	for name, text := range map[string]string{"docker-compose 1": resolvedByOne, "Compose v2": resolvedByTwo} {
		require.Empty(t, resolve(t, text).foreign("rehearsal"), name)
	}
	f := resolve(t, `
services:
  a:
    image: x
    networks: {default: null, ours: null, theirs: null}
    volumes:
      - {type: volume, source: named, target: /data}
      - {type: bind, source: /srv/state, target: /data/state}
      - {type: bind, source: /srv/config, target: /config, read_only: true}
      - /srv/dump:/dump:ro,z
      - /srv/chain:/chain:rw
      - ./pg:/pg
      - /anonymous
      - outside:/outside
      - device:/device
      - own:/own
  b: {image: x, network_mode: host, volumes_from: ["container:real", a]}
  gone: {image: x, profiles: [p], volumes: ["unused:/data"], networks: [unused]}
networks:
  default: {name: p_default}
  ours: {}
  theirs: {external: true, name: theirs}
  unused: {name: real}
volumes:
  named: {name: real-data}
  outside: {external: {name: real}}
  device: {driver_opts: {type: none, o: bind, device: /srv/device}}
  own: {name: p_own, external: false}
  unused: {name: real}
`)
	require.Equal(t, []string{
		"volume device is /srv/device on the host or a server: remove driver_opts, so that the rehearsal gets its own",
		"volume named has the name real-data: remove that, so that the rehearsal gets its own",
		"volume outside is external: remove that, so that the rehearsal gets its own",
		"network theirs is external: remove that, so that the rehearsal gets its own",
		"service a may write to /srv/state on the host: use a volume, or mount it read-only",
		"service a may write to /srv/chain on the host: use a volume, or mount it read-only",
		"service a may write to ./pg on the host: use a volume, or mount it read-only",
		"service b has network_mode host: remove that",
		"service b has volumes_from container:real: remove that",
	}, f.foreign("p"))
	require.True(t, f.hasVolume("own"))
	require.False(t, f.hasVolume("unused"), "nobody uses it any more")
}

func TestNodeWithoutAPlanOfItsOwnKeepsTheImages(t *testing.T) {
	f := resolve(t, resolvedByOne)
	require.NoError(t, f.change("sequencer", nodeChange{published: ports{1, 2}}))
	require.Equal(t, "testnet", f.service("sequencer")["image"])
	require.NotContains(t, f.service("sequencer")["environment"], "ENTRYPOINT_CONFIG")
}

func TestComposeFileThatDoesNotFitIsRefused(t *testing.T) {
	f := resolve(t, resolvedByOne)
	require.EqualError(t, f.change("replica-9", nodeChange{}),
		"the Compose file has no service replica-9, only da, sequencer: name the nodes with --nodes")
	delete(f.service("sequencer"), "image")
	require.ErrorContains(t, f.change("sequencer", nodeChange{}), "has no image")
	for text, want := range map[string]string{
		"services: [1]":    "has no services",
		"services: {a: 1}": "service a",
		"\t":               "cannot read",
	} {
		_, err := readComposeFile(text, ports{})
		require.ErrorContains(t, err, want, text)
	}
}

func TestNetworksOfAServiceAreKnownByTheirNamesAtTheEngine(t *testing.T) {
	f := resolve(t, `
networks: {da: {internal: true}, nodes: {name: other}}
services:
  a: {image: x, networks: {da: null, nodes: {aliases: [b]}}}
  c: {image: x, networks: [da]}
  d: {image: x}
`)
	require.Equal(t, map[string][]string{"p_da": {"a"}, "other": {"a", "b"}}, f.networksOf("a", "p"))
	require.Equal(t, map[string][]string{"p_da": {"c"}}, f.networksOf("c", "p"))
	require.Empty(t, f.networksOf("d", "p"))
}
