import { S3Client } from '@aws-sdk/client-s3';
import { Retryable } from './types.ts';

export type AwsIdentity = S3Client['config']['credentials'];

/** Where the environment does not say another: it tells which STS is asked. */
const REGION_DEFAULT = 'us-east-1';

/**
 * The operator's own identity, as the SDK finds it: environment, web identity (IRSA: STS is given the token of the service
 * account), Pod Identity, instance metadata. One for all reads: each client would ask STS for its own otherwise.
 */
export function ambientIdentity(environment: NodeJS.ProcessEnv = process.env): AwsIdentity {
  const client = new S3Client({ region: environment.AWS_REGION || REGION_DEFAULT });
  return async (options) => {
    try {
      return await client.config.credentials(options);
    } catch (error) {
      const message =
        'The operator gets no AWS identity of its own (--aws-identity ambient): not from its environment, STS or instance metadata.';
      throw new Retryable('CredentialsNotFound', message, { code: nameOf(error) });
    }
  };
}

/** The SDK's class of error, for the operator's log; its text may hold what STS answered. */
function nameOf(error: unknown): string {
  const name = error instanceof Error ? error.name : '';
  return /^[A-Za-z]{3,60}$/.test(name) ? name : 'no identity';
}
