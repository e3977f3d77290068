export const TOKENS = {
  trainer: 'canary-token-trainer',
  otherNamespace: 'canary-token-other-namespace',
  wrongAudience: 'canary-token-wrong-audience',
  noAudience: 'canary-token-no-audience',
  expired: 'canary-token-expired',
} as const;

/** The two reviews of an API server. */
export class FakeReviews {
  asked: { kind: string; spec: Record<string, unknown> }[] = [];
  down = false;
  holdMs = 0;

  readonly request = async <T>(call: { path: string; body?: unknown }): Promise<T> => {
    const { kind, spec } = call.body as { kind: string; spec: Record<string, unknown> };
    this.asked.push({ kind, spec });
    if (this.holdMs > 0) await new Promise((resolve) => setTimeout(resolve, this.holdMs));
    if (this.down) throw new Error(`connect ECONNREFUSED, body was ${JSON.stringify(call.body)}`);
    return { status: kind === 'TokenReview' ? tokenStatus(String(spec.token)) : accessStatus(spec) } as T;
  };
}

function tokenStatus(token: string): object {
  const user = {
    username: `system:serviceaccount:team-a:${token.replace('canary-token-', '')}`,
    groups: ['g'],
    uid: 'u',
  };
  const audiences = ['lorikeet-push'];
  if (token === TOKENS.trainer || token === TOKENS.otherNamespace)
    return { authenticated: true, user, audiences };
  if (token === TOKENS.wrongAudience)
    return { authenticated: true, user, audiences: ['https://kubernetes.default'] };
  if (token === TOKENS.noAudience) return { authenticated: true, user };
  return { authenticated: false, error: `token ${token} has expired` };
}

function accessStatus(spec: Record<string, unknown>): object {
  const { namespace, subresource, resource, group } = spec.resourceAttributes as Record<string, string>;
  const isTrainer = String(spec.user).endsWith(':trainer');
  const allowed =
    isTrainer &&
    namespace === 'team-a' &&
    `${group}/${resource}/${subresource}` === 'lorikeet.dev/loraadapters/tensors';
  return { allowed };
}
