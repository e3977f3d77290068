import { attribute, item, path, slice } from './access.ts';
import { Arguments } from './arguments.ts';
import { type FilterContext, filterNamed } from './filters.ts';
import type { Call, CallBlock, For, Identifier, Node } from './nodes.ts';
import { binary } from './operators.ts';
import { Scope } from './scope.ts';
import { testNamed } from './tests.ts';
import {
  type Callable,
  type Dict,
  Float,
  iterate,
  Namespace,
  numeric,
  str,
  TemplateError,
  Tuple,
  truthy,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

/** How a block ended before its end. */
type Leave = 'break' | 'continue' | null;

const CONTEXT: FilterContext = { attribute: path, filter: applyFilter };

/** Writes the nodes' text to `out`, as Jinja does with trim_blocks, lstrip_blocks and loop controls on. */
export function run(nodes: Node[], scope: Scope, out: string[]): Leave {
  for (const node of nodes) {
    const leave = statement(node, scope, out);
    if (leave !== null) return leave;
  }
  return null;
}

function statement(node: Node, scope: Scope, out: string[]): Leave {
  switch (node.type) {
    case 'If':
      return run(truthy(evaluate(node.test, scope)) ? node.body : node.alternate, scope, out);
    case 'For':
      runLoop(node, scope, out);
      return null;
    case 'Set':
      assign(
        node.assignee,
        node.value === null ? textOf(node.body, scope) : evaluate(node.value, scope),
        scope,
      );
      return null;
    case 'Macro':
      scope.set(node.name.value, macro(node.name.value, node.args, node.body, scope));
      return null;
    case 'CallStatement':
      out.push(str(callBlock(node, scope)));
      return null;
    case 'FilterStatement':
      out.push(str(filtered(textOf(node.body, scope), node.filter, scope)));
      return null;
    case 'Break':
      return 'break';
    case 'Continue':
      return 'continue';
    case 'Comment':
      return null;
    default:
      out.push(str(evaluate(node, scope)));
      return null;
  }
}

function textOf(nodes: Node[], scope: Scope): string {
  const out: string[] = [];
  run(nodes, new Scope(scope), out);
  return out.join('');
}

function runLoop(node: For, scope: Scope, out: string[]): void {
  const { iterable } = node;
  const isChosen = iterable.type === 'SelectExpression';
  const all = iterate(evaluate(isChosen ? iterable.lhs : iterable, scope));
  const items = isChosen ? all.filter((value) => truthy(evaluate(iterable.test, withItem(value)))) : all;
  // Each round begins with the names outside: what one round sets, the next does not see.
  function withItem(value: Value): Scope {
    const inner = new Scope(scope);
    assign(node.loopvar, value, inner);
    return inner;
  }
  if (items.length === 0) run(node.defaultBlock, scope, out);
  let lastSeen: Value[] | null = null;
  const changed: Callable = (args) => {
    const isNew = lastSeen === null || !binary('==', lastSeen, args);
    lastSeen = args;
    return isNew;
  };
  for (const [index, value] of items.entries()) {
    const inner = withItem(value);
    inner.set('loop', loopAt(items, index, changed));
    if (run(node.body, inner, out) === 'break') break;
  }
}

function loopAt(items: Value[], index: number, changed: Callable): Namespace {
  const loop = new Namespace();
  const none = (which: string) => new Undefined(`there is no ${which} item`);
  const facts: Record<string, Value> = {
    index: index + 1,
    index0: index,
    revindex: items.length - index,
    revindex0: items.length - index - 1,
    first: index === 0,
    last: index === items.length - 1,
    length: items.length,
    depth: 1,
    depth0: 0,
    previtem: items[index - 1] ?? none('previous'),
    nextitem: items[index + 1] ?? none('next'),
    cycle: (args) => args[index % args.length] ?? none('cycled'),
    changed,
  };
  for (const [name, value] of Object.entries(facts)) loop.attributes.set(name, value);
  return loop;
}

function assign(target: Node, value: Value, scope: Scope): void {
  if (target.type === 'Identifier') {
    scope.set(target.value, value);
  } else if (target.type === 'TupleLiteral') {
    const items = iterate(value);
    if (items.length !== target.value.length)
      throw new TemplateError(
        `Expected ${target.value.length} values to unpack but received ${items.length}`,
      );
    for (const [index, part] of target.value.entries()) assign(part, items[index] as Value, scope);
  } else if (target.type === 'MemberExpression' && target.property.type === 'Identifier') {
    const owner = evaluate(target.object, scope);
    if (!(owner instanceof Namespace))
      throw new TemplateError('cannot assign attribute on non-namespace object');
    owner.attributes.set(target.property.value, value);
  } else {
    throw new TemplateError('Expected a name to assign to');
  }
}

function macro(name: string, parameters: Node[], body: Node[], outer: Scope): Callable {
  return (args, named) => {
    const scope = new Scope(outer);
    const left = new Map(named);
    for (const [index, parameter] of parameters.entries()) {
      const isOptional = parameter.type === 'KeywordArgumentExpression';
      const key = isOptional ? parameter.key.value : (parameter as Identifier).value;
      const given = args[index] ?? left.get(key);
      left.delete(key);
      const absent = () =>
        isOptional ? evaluate(parameter.value, scope) : new Undefined(`parameter '${key}' was not provided`);
      scope.set(key, given === undefined ? absent() : given);
    }
    scope.set('caller', left.get('caller') ?? new Undefined(`No caller defined for macro '${name}'`));
    left.delete('caller');
    scope.set('varargs', new Tuple(args.slice(parameters.length)));
    scope.set('kwargs', left);
    return textOf(body, scope);
  };
}

function callBlock({ call, callerArgs, body }: CallBlock, scope: Scope): Value {
  const [args, named] = argumentsOf(call.args, scope);
  named.set('caller', macro('caller', callerArgs ?? [], body, scope));
  return invoke(evaluate(call.callee, scope), args, named);
}

export function evaluate(node: Node, scope: Scope): Value {
  switch (node.type) {
    case 'StringLiteral':
    case 'IntegerLiteral':
      return node.value;
    case 'FloatLiteral':
      return new Float(node.value);
    case 'ArrayLiteral':
      return node.value.map((part) => evaluate(part, scope));
    case 'TupleLiteral':
      return new Tuple(node.value.map((part) => evaluate(part, scope)));
    case 'ObjectLiteral':
      return new Map(
        [...node.value].map(([key, value]) => [keyOf(evaluate(key, scope)), evaluate(value, scope)]),
      );
    case 'Identifier':
      return scope.get(node.value);
    case 'MemberExpression':
      return member(node.object, node.property, node.computed, scope);
    case 'CallExpression':
      return invoke(evaluate(node.callee, scope), ...argumentsOf(node.args, scope));
    case 'UnaryExpression':
      return unary(node.operator.value, evaluate(node.argument, scope));
    case 'BinaryExpression':
      return operation(node.operator.value, node.left, node.right, scope);
    case 'FilterExpression':
      return filtered(evaluate(node.operand, scope), node.filter, scope);
    case 'TestExpression':
      return testNamed(node.test.value)(evaluate(node.operand, scope)) !== node.negate;
    case 'Ternary':
      return evaluate(truthy(evaluate(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
    case 'SelectExpression':
      return truthy(evaluate(node.test, scope))
        ? evaluate(node.lhs, scope)
        : new Undefined('the inline if-expression evaluated to false and no else section was defined');
    default:
      throw new TemplateError(`Expected an expression but found ${node.type}`);
  }
}

function keyOf(key: Value): string {
  if (typeof key === 'string') return key;
  throw new TemplateError(`Expected a string as a key but found a ${typeName(key)}`);
}

function member(object: Node, property: Node, isComputed: boolean, scope: Scope): Value {
  const owner = evaluate(object, scope);
  if (property.type === 'SliceExpression') {
    const part = (node: Node | undefined) => (node === undefined ? null : evaluate(node, scope));
    return slice(owner, part(property.start), part(property.stop), part(property.step));
  }
  if (isComputed || property.type !== 'Identifier') return item(owner, evaluate(property, scope));
  return attribute(owner, property.value);
}

function unary(operator: string, value: Value): Value {
  if (operator === 'not') return !truthy(value);
  const number = numeric(value);
  if (value instanceof Undefined) value.fail();
  if (number === null)
    throw new TemplateError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  const result = operator === '-' ? -number : number;
  return value instanceof Float ? new Float(result) : result;
}

function operation(operator: string, left: Node, right: Node, scope: Scope): Value {
  const first = evaluate(left, scope);
  if (operator === 'and') return truthy(first) ? evaluate(right, scope) : first;
  if (operator === 'or') return truthy(first) ? first : evaluate(right, scope);
  return binary(operator, first, evaluate(right, scope));
}

function argumentsOf(nodes: Node[], scope: Scope): [Value[], Dict] {
  const args: Value[] = [];
  const named: Dict = new Map();
  for (const node of nodes) {
    if (node.type === 'KeywordArgumentExpression') named.set(node.key.value, evaluate(node.value, scope));
    else if (node.type === 'SpreadExpression') args.push(...iterate(evaluate(node.argument, scope)));
    else if (node.type === 'KeywordSpreadExpression') {
      const more = evaluate(node.argument, scope);
      if (!(more instanceof Map)) throw new TemplateError('argument after ** must be a mapping');
      for (const [name, value] of more) named.set(name, value);
    } else args.push(evaluate(node, scope));
  }
  return [args, named];
}

function invoke(callee: Value, args: Value[], named: Dict): Value {
  if (typeof callee === 'function') return callee(args, named);
  if (callee instanceof Undefined) callee.fail();
  throw new TemplateError(`'${typeName(callee)}' object is not callable`);
}

function filtered(value: Value, filter: Identifier | Call, scope: Scope): Value {
  if (filter.type === 'Identifier') return applyFilter(filter.value, value, new Arguments([], new Map()));
  return applyFilter(
    (filter.callee as Identifier).value,
    value,
    new Arguments(...argumentsOf(filter.args, scope)),
  );
}

function applyFilter(name: string, value: Value, given: Arguments): Value {
  return filterNamed(name)(value, given, CONTEXT);
}
