import { Arguments } from './arguments.ts';
import { type Callable, type Dict, fromJson, Namespace, str, TemplateError, type Value } from './values.ts';

/** As in Jinja's sandbox. */
const RANGE_MAX = 100_000;

/** What a template finds without being given it, in transformers. */
export function globals(now: () => Date): Dict {
  const functions: Record<string, Callable> = {
    dict: (_args, named) => new Map(named),
    namespace: (args, named) => {
      const made = new Namespace();
      const given = args[0] instanceof Map ? [...args[0]] : [];
      for (const [name, value] of [...given, ...named]) made.attributes.set(name, value);
      return made;
    },
    raise_exception: ([message = null]) => {
      throw new TemplateError(str(message));
    },
    range: (args, named) => range(new Arguments(args, named)),
    strftime_now: ([format = '']) => strftime(str(format), now()),
  };
  const constants: Record<string, Value> = {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
  };
  return new Map<string, Value>([...Object.entries(functions), ...Object.entries(constants)]);
}

function range(given: Arguments): Value {
  const isOne = given.positional.length === 1;
  const [start, stop] = isOne
    ? [0, given.integer(0, 'stop')]
    : [given.integer(0, 'start'), given.integer(1, 'stop')];
  const step = given.integer(2, 'step', 1);
  const length = step === 0 ? Number.POSITIVE_INFINITY : Math.max(0, Math.ceil((stop - start) / step));
  if (length > RANGE_MAX)
    throw new TemplateError(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${RANGE_MAX}).`);
  return fromJson(Array.from({ length }, (_, index) => start + index * step));
}

const MONTHS = 'January February March April May June July August September October November December'.split(
  ' ',
);
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

function strftime(format: string, at: Date): string {
  const two = (number: number) => String(number).padStart(2, '0');
  const [month, day] = [MONTHS[at.getMonth()] ?? '', DAYS[at.getDay()] ?? ''];
  const fields: Record<string, string> = {
    a: day.slice(0, 3),
    A: day,
    b: month.slice(0, 3),
    B: month,
    d: two(at.getDate()),
    H: two(at.getHours()),
    I: two(at.getHours() % 12 || 12),
    m: two(at.getMonth() + 1),
    M: two(at.getMinutes()),
    p: at.getHours() < 12 ? 'AM' : 'PM',
    S: two(at.getSeconds()),
    y: two(at.getFullYear() % 100),
    Y: String(at.getFullYear()),
    '%': '%',
  };
  return format.replace(/%(-?)(.)/gs, (whole, bare: string, letter: string) => {
    const field = Object.hasOwn(fields, letter) ? fields[letter] : undefined;
    if (field === undefined) throw new TemplateError(`strftime_now does not know ${whole}`);
    return bare === '' ? field : field.replace(/^0(?=.)/, '');
  });
}
