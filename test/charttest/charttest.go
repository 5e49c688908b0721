// Package charttest tests the chart charts/rollup with the programs helm and kubeconform, without a cluster: every value
// of its schema, the objects that it makes for ten files of values, and what must not change them. 'make chart' runs the
// tests, after 'make chart-tools' has installed the programs.
package charttest
