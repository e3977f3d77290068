import { z } from 'zod';
import { API_GROUP } from './lora-adapter.ts';

export interface CrdOptions {
  resource: { group: string; version: string; plural: string; kind: string };
  singular: string;
  shortNames: string[];
  description: string;
  spec: z.ZodType;
  status: z.ZodType;
  columns: PrinterColumn[];
}

export interface PrinterColumn {
  name: string;
  type: 'string' | 'integer' | 'date';
  jsonPath: string;
  description: string;
  /** Above zero: shown with -o wide only. */
  priority?: number;
}

/** What the API server gives a new object: without it kstatus, and so Flux, takes one that nobody has looked at for done. */
const UNSEEN = { observedGeneration: -1 };

/** A node of a JSON schema, or a list or value within. */
type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Node = { [key: string]: Json };

/** A CustomResourceDefinition whose schema says the same as the zod schemas. */
export function customResourceDefinition(options: CrdOptions): object {
  const { resource, singular, shortNames, description, columns } = options;
  const { group, version, plural, kind } = resource;
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular,
        shortNames,
        categories: [API_GROUP.split('.')[0]],
      },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: columns,
          schema: {
            openAPIV3Schema: {
              type: 'object',
              description,
              required: ['spec'],
              properties: {
                apiVersion: { type: 'string', description: 'The group and version of the schema.' },
                kind: { type: 'string', description: 'The kind of the object.' },
                metadata: { type: 'object' },
                spec: structuralSchema(options.spec, 'spec'),
                status: { ...structuralSchema(options.status, 'status'), default: UNSEEN },
              },
            },
          },
        },
      ],
    },
  };
}

/** The schema as the API server accepts it; throws where a field has no description or no upper bound. */
export function structuralSchema(schema: z.ZodType, path: string): Node {
  const { $schema: _, ...root } = z.toJSONSchema(schema, {
    target: 'openapi-3.0',
    io: 'input',
    reused: 'inline',
    unrepresentable: 'throw',
  });
  return structural(root as Node, path);
}

function structural(node: Node, path: string): Node {
  const { properties, required, items, additionalProperties, anyOf, ...plain } = node;
  if (anyOf !== undefined) return intOrString(plain, anyOf as Node[], path);
  requireBound(node, path);
  if (plain.type === 'integer') plain.format = 'int64';
  if (Number(plain.maximum) === Number.MAX_SAFE_INTEGER) delete plain.maximum;
  if (plain.format === 'date-time') delete plain.pattern;
  return {
    ...plain,
    ...ofObject(properties as Node | undefined, required as string[] | undefined, path),
    ...(items !== undefined && { items: structural(items as Node, `${path}[]`) }),
    ...(isNode(additionalProperties) && {
      additionalProperties: structural(additionalProperties, `${path}{}`),
    }),
  };
}

function ofObject(properties: Node | undefined, required: string[] = [], path: string): Node {
  if (properties === undefined) return {};
  const entries = Object.entries(properties).map(([name, property]): [string, Node] => {
    const child = property as Node;
    if (typeof child.description !== 'string') throw new SchemaError(`${path}.${name}`, 'a description');
    return [name, structural(child, `${path}.${name}`)];
  });
  // A merge patch drops nulls on its way, even those within lists: null and absent must be the same.
  const present = required.filter((name) => (properties[name] as Node).nullable !== true);
  return { ...(present.length > 0 && { required: present }), properties: Object.fromEntries(entries) };
}

/** The one union of types that a structural schema may have. */
function intOrString(plain: Node, anyOf: Node[], path: string): Node {
  const integer = anyOf.find(({ type }) => type === 'integer');
  const string = anyOf.find(({ type }) => type === 'string');
  if (!integer || !string || anyOf.length !== 2)
    throw new SchemaError(path, 'no union but of integer and string');
  requireBound(string, path);
  const { pattern, maxLength } = string as { pattern: string; maxLength: number };
  const { minimum, exclusiveMinimum } = integer as { minimum: number; exclusiveMinimum?: true };
  return {
    ...plain,
    'x-kubernetes-int-or-string': true,
    anyOf: [{ type: 'integer' }, { type: 'string' }],
    pattern,
    maxLength,
    minimum: exclusiveMinimum ? minimum + 1 : minimum,
  };
}

/** Without bounds the API server cannot estimate what a CEL rule costs, and refuses it. */
function requireBound(node: Node, path: string): void {
  const { type } = node;
  const bounded =
    (type !== 'string' || 'maxLength' in node || 'enum' in node || node.format === 'date-time') &&
    (type !== 'array' || 'maxItems' in node) &&
    (!isNode(node.additionalProperties) || 'maxProperties' in node);
  if (!bounded) throw new SchemaError(path, 'an upper bound');
}

function isNode(value: Json | undefined): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export class SchemaError extends Error {
  readonly code = 'schema_not_structural';

  constructor(path: string, expected: string) {
    super(`Expected ${expected} for ${path}`);
    this.name = 'SchemaError';
  }
}
