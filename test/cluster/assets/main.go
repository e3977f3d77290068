// One binary that is every tool of the tests' cluster, chosen by the name it is called under. Links named etcd,
// kube-apiserver, helm, … beside it make its folder look like the KUBEBUILDER_ASSETS of a control plane, and more.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Each file of this folder adds its own; a command returns the exit status.
var commands = map[string]func() int{}

func main() {
	name := filepath.Base(os.Args[0])
	command, known := commands[name]
	if !known {
		names := slices.Sorted(maps.Keys(commands))
		fmt.Fprintf(os.Stderr, "call me by one of the names %s, not %q\n", strings.Join(names, ", "), name)
		os.Exit(2)
	}
	os.Exit(command())
}
