import type { Command, Invocation } from '../command.ts';
import { Misuse } from '../failure.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

/** Each asks the plugin itself, in the protocol of kubectl: a candidate a line, a tab before what it is, `:4` at the end. */
const SCRIPTS: Record<Shell, string> = {
  bash: `# kubectl lora completion bash > /etc/bash_completion.d/kubectl-lora
_kubectl_lora() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    [[ $line == :* ]] || COMPREPLY+=("\${line%%$'\\t'*}")
  done < <(kubectl-lora __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  COMPREPLY=($(compgen -W "\${COMPREPLY[*]}" -- "\${COMP_WORDS[COMP_CWORD]}"))
  [[ \${#COMPREPLY[@]} -gt 0 ]] || compopt -o default 2>/dev/null
}
complete -F _kubectl_lora kubectl-lora
`,
  zsh: `#compdef kubectl-lora
# kubectl lora completion zsh > "\${fpath[1]}/_kubectl-lora"
_kubectl_lora() {
  local -a found
  local line
  while IFS= read -r line; do
    [[ $line == :* ]] || found+=("\${line//$'\\t'/:}")
  done < <(kubectl-lora __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( \${#found} )); then _describe 'kubectl lora' found; else _files; fi
}
compdef _kubectl_lora kubectl-lora
`,
  fish: `# kubectl lora completion fish > ~/.config/fish/completions/kubectl-lora.fish
function __kubectl_lora_complete
  set -l words (commandline -opc) (commandline -ct)
  kubectl-lora __complete $words[2..-1] 2>/dev/null | string match -v ':*'
end
complete -c kubectl-lora -a '(__kubectl_lora_complete)'
`,
};

export const completion: Command = {
  name: 'completion',
  args: 'bash|zsh|fish',
  arity: [1, 1],
  about: 'Prints the script that completes commands, flags and names in a shell.',
  detail: `
The script completes "kubectl-lora". For "kubectl lora", kubectl's own completion asks a program kubectl_complete-lora
on the PATH, which is this plugin under another name:

  ln -s "$(command -v kubectl-lora)" ~/.local/bin/kubectl_complete-lora

Examples:
  source <(kubectl lora completion bash)`,
  flags: {},
  run: async ({ io, args: [shell = ''] }: Invocation) => {
    io.out(SCRIPTS[requireShell(shell)]);
  },
};

function requireShell(text: string): Shell {
  const shell = SHELLS.find((candidate) => candidate === text);
  if (shell !== undefined) return shell;
  throw new Misuse(`completion is for ${SHELLS.join(', ')}, not ${text}`);
}
