# Merges a coverage profile, which has a block once for each test binary, and prints how many statements of each package
# ran. Variables: packages (names, separated by spaces), module, minimum (the percentage that each package must reach).
NR == 1 { next }
{
	statements[$1] = $2
	hits[$1] += $3
}
END {
	for (block in statements) {
		package = block
		sub(/\/[^\/]*$/, "", package)
		total[package] += statements[block]
		if (hits[block] > 0) covered[package] += statements[block]
	}
	count = split(packages, names, " ")
	for (i = 1; i <= count; i++) {
		package = module "/" names[i]
		percent = total[package] > 0 ? 100 * covered[package] / total[package] : 0
		low = percent < minimum
		failed = failed || low
		printf "%-22s %5.1f %% of %d statements%s\n", names[i], percent, total[package], low ? ", below " minimum " %" : ""
	}
	exit failed
}
