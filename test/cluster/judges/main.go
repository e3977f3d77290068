// Says of objects what tools of the field say of them, by the libraries that those tools use.
//
//	judge kstatus                   as Flux, kpt and cli-utils
//	judge argocd HEALTH.lua         as Argo CD with that health check
//
// Objects come as a JSON list on stdin, judgements go as one to stdout, in the same order.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
	kstatus "sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type judgement struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	judge, err := judgeOf(args)
	if err != nil {
		return err
	}
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return err
	}
	judgements := make([]judgement, 0, len(objects))
	for _, object := range objects {
		judged, err := judge(object)
		if err != nil {
			return err
		}
		judgements = append(judgements, judged)
	}
	return json.NewEncoder(os.Stdout).Encode(judgements)
}

func judgeOf(args []string) (func(json.RawMessage) (judgement, error), error) {
	switch {
	case len(args) == 1 && args[0] == "kstatus":
		return judgeKstatus, nil
	case len(args) == 2 && args[0] == "argocd":
		script, err := os.ReadFile(args[1])
		return func(object json.RawMessage) (judgement, error) { return judgeArgo(string(script), object) }, err
	default:
		return nil, errors.New("usage: judge kstatus | judge argocd HEALTH.lua")
	}
}

func judgeKstatus(object json.RawMessage) (judgement, error) {
	parsed := &unstructured.Unstructured{}
	if err := parsed.UnmarshalJSON(object); err != nil {
		return judgement{}, err
	}
	result, err := kstatus.Compute(parsed)
	if err != nil {
		return judgement{}, err
	}
	return judgement{result.Status.String(), result.Message}, nil
}

// Argo CD opens these libraries and no other, gives the object as the global obj, and takes the table that the script returns.
func judgeArgo(script string, object json.RawMessage) (judgement, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, open := range []lua.LGFunction{lua.OpenPackage, lua.OpenBase, lua.OpenTable, lua.OpenString, lua.OpenMath} {
		state.Push(state.NewFunction(open))
		state.Call(0, 0)
	}
	value, err := luajson.Decode(state, object)
	if err != nil {
		return judgement{}, err
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(script); err != nil {
		return judgement{}, err
	}
	health, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		return judgement{}, fmt.Errorf("expected a table but the script returned %s", state.Get(-1).Type())
	}
	status := health.RawGetString("status").String()
	switch status {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return judgement{status, lua.LVAsString(health.RawGetString("message"))}, nil
	default:
		return judgement{}, fmt.Errorf("expected a health status that Argo CD knows, received %q", status)
	}
}
