import { z } from 'zod';
import { ObjectName, Sha256 } from './fields.ts';
import { Quantity } from './quantity.ts';

/** spec.source of a LoraAdapter. */

const Endpoint = z
  .string()
  .max(512)
  .regex(/^https?:\/\/[^\s/?#]+(\/[^\s?#]*)?$/);

const ObjectStoreSource = z.object({
  uri: z
    .string()
    .max(1024)
    .regex(
      /^(s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|gs:\/\/[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]|az:\/\/[a-z0-9]{3,24}\/[a-z0-9](-?[a-z0-9]){2,62})(\/.*)?$/,
    )
    .describe(
      's3://bucket/prefix/, gs://bucket/prefix/ or az://account/container/prefix/, under which adapter_config.json and adapter_model.safetensors lie.',
    ),
  versionId: z
    .string()
    .min(1)
    .max(1024)
    .optional()
    .describe(
      'The version (gs: the generation) of adapter_model.safetensors in a versioned bucket. Default: the newest.',
    ),
  endpoint: Endpoint.optional().describe(
    'The URL of a store that speaks the same. Default: AWS, Google Cloud Storage, the account at Azure.',
  ),
  region: z.string().min(1).max(64).optional().describe('Default: us-east-1; gs: auto.'),
  credentialsSecretRef: z
    .object({ name: ObjectName.describe('A Secret of the same namespace.') })
    .optional()
    .describe(
      'A Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, maybe AWS_SESSION_TOKEN (gs: the HMAC keys of a service account, under the same names; az: AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN), and in ca.crt the private CA of the endpoint, if any. Default: requests are not signed.',
    ),
});

const FileUrl = z
  .string()
  .max(2048)
  .regex(/^https?:\/\/[^\s/?#@]+\/([^\s?#]*[^\s/?#])(\?[^\s#]*)?$/);

const HttpSource = z.object({
  url: FileUrl.describe('The URL of the safetensors file.'),
  sha256: Sha256.describe('Lower-case hex SHA-256 of the safetensors file.'),
  configURL: FileUrl.optional().describe(
    'The URL of adapter_config.json, where that is signed by itself or lies elsewhere. Default: in the folder of url, with the same query.',
  ),
  configSha256: Sha256.optional().describe(
    'Lower-case hex SHA-256 of adapter_config.json; required with configURL.',
  ),
  credentialsSecretRef: z
    .object({ name: ObjectName.describe('A Secret of the same namespace.') })
    .optional()
    .describe(
      'A Secret with token (sent as Bearer), or username and password, and in ca.crt the private CA of the server, if any. Default: nothing is sent. A configURL on another server is asked without.',
    ),
});

const HTTP_RULES = [
  {
    rule: '!has(self.configURL) || has(self.configSha256)',
    message: 'configURL needs configSha256',
  },
];

const OciSource = z.object({
  image: z
    .string()
    .max(512)
    .regex(
      /^([a-z0-9-]+\.)*[a-z0-9-]+(:[0-9]{1,5})?\/[a-z0-9]+(([._/]|__|-+)[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})$/,
    )
    .describe(
      'registry/repository:tag or registry/repository@sha256:…, an artifact whose layers have the titles adapter_config.json and adapter_model.safetensors, as `oras push` makes it. A tag is read at the manifest that it names when it is looked at.',
    ),
  credentialsSecretRef: z
    .object({ name: ObjectName.describe('A Secret of the same namespace.') })
    .optional()
    .describe(
      'A Secret of type kubernetes.io/dockerconfigjson, or with username and password, and in ca.crt the private CA of the registry, if any. Default: nothing is sent.',
    ),
});

const HuggingFaceSource = z.object({
  repo: z
    .string()
    .max(193)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/)
    .describe('owner/name of a model repository.'),
  revision: z
    .string()
    .max(255)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._/-]*$/)
    .default('main')
    .describe(
      'A branch, a tag or a commit. A branch is read at the commit that it is at when it is looked at.',
    ),
  path: z
    .string()
    .max(1024)
    .optional()
    .describe('The folder with adapter_config.json and adapter_model.safetensors. Default: the root.'),
  endpoint: Endpoint.optional().describe(
    'The URL of a mirror or of another hub. Default: https://huggingface.co.',
  ),
  tokenSecretRef: z
    .object({ name: ObjectName.describe('A Secret of the same namespace.') })
    .optional()
    .describe(
      'A Secret with token (or HF_TOKEN), and in ca.crt the private CA of the endpoint, if any. Default: no token.',
    ),
});

const PushSource = z.object({
  maxBytes: Quantity.optional().describe(
    'A push larger than this is refused. Default: what the pods accept.',
  ),
  durability: z
    .enum(['Memory', 'ObjectStore'])
    .default('Memory')
    .describe(
      'Memory: a pushed revision lives in the pods and in the spool of the operator, nowhere else. ObjectStore: it is written to the object store before the push is answered, and read from there when nobody holds it any more.',
    ),
  objectStore: ObjectStoreSource.omit({ versionId: true })
    .optional()
    .describe('With durability ObjectStore: where each revision gets a folder, named by its digest.'),
});

const PUSH_RULES = [
  {
    rule: "has(self.objectStore) == (has(self.durability) && self.durability == 'ObjectStore')",
    message: 'objectStore is what durability ObjectStore needs, and nothing else does',
  },
];

const SOURCE_KINDS = ['objectStore', 'huggingFace', 'http', 'oci', 'push'] as const;

export const SOURCE_RULES = [
  {
    rule: `[${SOURCE_KINDS.map((kind) => `has(self.${kind})`).join(', ')}].filter(isSet, isSet).size() == 1`,
    message: `exactly one of ${SOURCE_KINDS.join(', ').replace(/, (\w+)$/, ' and $1')} must be set`,
  },
  {
    rule: SOURCE_KINDS.map((kind) => `has(self.${kind}) == has(oldSelf.${kind})`).join(' && '),
    message: 'the kind of a source is immutable: make another LoraAdapter',
  },
];

export const Source = z.object({
  objectStore: ObjectStoreSource.optional().describe('The adapter lies in an object store.'),
  huggingFace: HuggingFaceSource.optional().describe(
    'The adapter lies in a repository of the Hugging Face Hub.',
  ),
  http: HttpSource.optional()
    .describe('The adapter lies on a web server.')
    .meta({ 'x-kubernetes-validations': HTTP_RULES }),
  oci: OciSource.optional().describe('The adapter is an artifact of an OCI registry.'),
  push: PushSource.optional()
    .describe('A trainer pushes the adapter to the operator; see status.pushURL.')
    .meta({ 'x-kubernetes-validations': PUSH_RULES }),
});
