import type { ErrorReply } from '../../server/contract/adapter-api.ts';
import type { ErrorCode } from '../../server/contract/errors.ts';
import type { LoraAdapter } from '../api/lora-adapter.ts';
import { CommandFailure, EXIT } from './failure.ts';

interface Asked {
  adapter: LoraAdapter;
  /** `namespace/name` of the ServiceAccount that asked. */
  account: string | null;
}

/** What the operator said no to, in its words, and what to do about it. */
export class OperatorRefusal extends CommandFailure {
  readonly code: string;

  constructor({ code, message }: ErrorReply['error'], asked: Asked) {
    const exit = code === 'timeout' || code === 'request_timeout' ? EXIT.timedOut : EXIT.failed;
    super(`${message.replace(/\.$/, '')} (${code})`, { exit, todo: todoOf(code as ErrorCode, asked) });
    this.name = 'OperatorRefusal';
    this.code = code;
  }
}

function todoOf(code: ErrorCode, { adapter, account }: Asked): string | null {
  const { name, namespace = '' } = adapter.metadata;
  const at = `-n ${namespace}`;
  switch (code) {
    case 'unauthenticated':
      return 'The token must be of a ServiceAccount and for the audience of the operator: see --account and --audience.';
    case 'forbidden': {
      const [accountNamespace, accountName] = (account ?? `${namespace}/ACCOUNT`).split('/');
      const whose = `${accountNamespace}:${accountName}`;
      return `kubectl create rolebinding ${accountName}-pushes ${at} --clusterrole=lorikeet-pusher --serviceaccount=${whose}`;
    }
    case 'step_not_newer':
      return 'Push with a later --step; one that was rolled back counts too.';
    case 'precondition_failed':
      return `Somebody else changed it, or spec.update.revision or spec.suspend holds it: kubectl lora status ${name} ${at}`;
    case 'not_push_source':
      return `Its tensors come from elsewhere: kubectl get lora ${name} ${at} -o jsonpath='{.spec.source}'`;
    case 'no_capacity':
    case 'no_pods':
      return `kubectl lora why ${name} ${at}`;
    case 'zero_effect':
      return 'Every B is zero, as before training; --allow-zero-effect pushes it all the same.';
    case 'revision_not_found':
      return `kubectl lora rollout history ${name} ${at} lists what can be gone back to.`;
    case 'missing_config':
      return 'Put adapter_config.json beside the tensors, or name it with --config.';
    case 'rank_too_large':
    case 'body_too_large':
      return `What the pool takes: kubectl get lorapool ${adapter.spec.poolRef.name} -n ${adapter.spec.poolRef.namespace ?? namespace} -o jsonpath='{.spec.limits}'`;
    case 'not_leader':
    case 'shutting_down':
    case 'superseded':
    case 'too_many_requests':
    case 'timeout':
      return 'Try again.';
    default:
      return null;
  }
}
