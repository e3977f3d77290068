import { describe, expect, it } from 'vitest';
import { findCommand } from '../../../operator/cli/command.ts';
import { COMMANDS } from '../../../operator/cli/commands.ts';
import { complete } from '../../../operator/cli/complete.ts';
import { run } from '../../../operator/cli/run.ts';
import { Terminal } from './terminal.ts';

describe('the command line', () => {
  it.each([
    ['status', []],
    ['-n models status sql', ['-n', 'models', 'sql']],
    ['rollout status sql', ['sql']],
    ['rollout -n models undo sql --to step-4', ['-n', 'models', 'sql', '--to', 'step-4']],
  ])('%s is found, wherever its flags stand', (line, rest) => {
    const found = findCommand(COMMANDS, line.split(' '));
    expect(found.command?.name).toBe(
      line.includes('rollout') ? (line.includes('undo') ? 'rollout undo' : 'rollout status') : 'status',
    );
    expect(found.rest).toEqual(rest);
  });

  it.each([
    ['frobnicate', 'there is no command "frobnicate"'],
    ['rollout frobnicate', 'there is no command "rollout frobnicate"'],
    ['status a b', 'status takes [NAME], not "a" "b"'],
    ['why', 'why takes NAME, not nothing'],
    ['status --frobnicate', "Unknown option '--frobnicate'"],
    ['status -o xml', '--output is one of table, wide, json, yaml, not xml'],
    ['status sql -A', 'a name and --all-namespaces do not go together'],
    ['push sql dir --step -1', '--step'],
    ['push sql dir --step x', '--step is a whole number, not x'],
    ['push sql dir --if-match abc', '--if-match is a whole digest'],
    ['push sql dir --timeout 11m', '--timeout is 1ms to 10m'],
    ['rollout status sql --timeout soon', '--timeout is a time such as 30s or 5m, not soon'],
    ['top --interval 1ms', '--interval is 100ms to 5m'],
    ['completion tcsh', 'completion is for bash, zsh, fish, not tcsh'],
  ])('%s is misused, with 2 and a word of why', async (line, why) => {
    const terminal = new Terminal({ KUBECONFIG: '/nonexistent' });
    const code = await run(line.split(' '), terminal);
    expect({ code, stderr: terminal.stderr }).toEqual({ code: 2, stderr: expect.stringContaining(why) });
    expect(terminal.stdout).toBe('');
  });

  it.each(COMMANDS.map(({ name }) => name))('%s --help says what it does and every flag', async (name) => {
    const terminal = new Terminal();
    const command = COMMANDS.find((candidate) => candidate.name === name);
    expect(await run([...name.split(' '), '--help'], terminal)).toBe(0);
    expect(terminal.stdout).toContain(`Usage: kubectl lora ${name}`);
    for (const flag of Object.keys(command?.flags ?? {})) expect(terminal.stdout).toContain(`--${flag}`);
    for (const line of terminal.stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(140);
  });

  it('lists all commands, on stdout where that is asked for', async () => {
    const [asked, lost] = [new Terminal(), new Terminal()];
    expect([await run(['--help'], asked), await run([], lost)]).toEqual([0, 2]);
    expect(lost.stderr).toBe(asked.stdout);
    for (const { name } of COMMANDS) expect(asked.stdout).toContain(`  ${name}`);
  });
});

describe('completion', () => {
  const values = (...words: string[]) => complete(COMMANDS, words).candidates.map(({ value }) => value);

  it('offers commands, and the second word of those that have two', () => {
    expect(values('')).toEqual(['push', 'status', 'why', 'rollout', 'top', 'diff', 'completion']);
    expect(values('rollout', '')).toEqual(['status', 'history', 'undo']);
    expect(values('st')).toEqual(['status']);
  });

  it('offers flags, and what a flag may be', () => {
    expect(values('push', '--w')).toEqual(['--wait']);
    expect(values('status', '-o', '')).toEqual(['table', 'wide', 'json', 'yaml']);
    expect(values('completion', 'z')).toEqual(['zsh']);
  });

  it('offers adapters where a name stands, and files where files do', () => {
    expect(complete(COMMANDS, ['status', '-n', 'models', '']).adapters?.rest).toEqual(['-n', 'models']);
    expect(complete(COMMANDS, ['push', 'sql', ''])).toMatchObject({ adapters: null, files: true });
    expect(complete(COMMANDS, ['push', 'sql', 'dir', '--config', ''])).toMatchObject({ files: true });
  });
});
