package main

import (
	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func init() { commands["registry"] = runRegistry }

// As the distribution's own command, without the clouds' storage.
func runRegistry() int {
	if err := registry.RootCmd.Execute(); err != nil {
		return 1
	}
	return 0
}
