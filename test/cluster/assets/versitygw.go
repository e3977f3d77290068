package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func init() { commands["versitygw"] = runVersitygw }

// The gateway without its clouds, a bucket for each folder below its argument; limits are those of its own command.
func runVersitygw() int {
	address := flag.String("port", "", "`address` to listen at")
	region := flag.String("region", "us-east-1", "`name` of the region")
	versions := flag.String("versioning-dir", "", "`folder` of what was overwritten")
	flag.Parse()
	options := posix.PosixOpts{VersioningDir: *versions, Concurrency: 5000}
	options.SetNewDirPerm(0o755)
	options.SetNewFilePerm(0o644)
	store, err := posix.New(flag.Arg(0), meta.XattrMeta{}, options)
	if err == nil {
		stopped, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = embedgw.RunVersityGW(stopped, store, &embedgw.Config{
			RootUserAccess:    os.Getenv("ROOT_ACCESS_KEY"),
			RootUserSecret:    os.Getenv("ROOT_SECRET_KEY"),
			Region:            *region,
			Ports:             []string{*address},
			MaxConnections:    250_000,
			MaxRequests:       100_000,
			MultipartMaxParts: 10_000,
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
