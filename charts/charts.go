// Package charts has the chart of a rollup, rollup/. Its tests here compare what is in it twice; test/charttest tests
// what it makes.
package charts
