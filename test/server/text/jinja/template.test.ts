import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Template } from '../../../../server/text/jinja/template.ts';
import { TemplateError } from '../../../../server/text/jinja/values.ts';

interface Recorded {
  given: object;
  messages: object[];
  cases: { template: string; text?: string; error?: string }[];
}

const RECORDED = resolve(import.meta.dirname, '../../../fixtures/transformers/language.json');
const { given, messages, cases }: Recorded = JSON.parse(readFileSync(RECORDED, 'utf8'));
const render = (source: string) => new Template(source).render({ given, messages });

describe('what Jinja makes of a template', () => {
  it.each(cases.filter(({ error }) => error === undefined))('$template', ({ template, text }) => {
    expect(render(template)).toBe(text);
  });

  it.each(cases.filter(({ error }) => error !== undefined))('$template is refused', ({ template, error }) => {
    expect(() => render(template)).toThrow(new TemplateError(error));
  });
});

describe('a template', () => {
  it.each([
    ['{% do x %}', 'do'],
    ['{{ x | nofilter }}', 'nofilter'],
    ['{% filter nofilter %}{% endfilter %}', 'nofilter'],
    ['{{ x is notest }}', 'notest'],
    ['{% if x %}', ''],
  ])('%s is refused before it is used', (source, reason) => {
    expect(() => new Template(source)).toThrow(TemplateError);
    expect(() => new Template(source)).toThrow(reason);
  });

  it('with line ends of Windows writes those of Unix', () => {
    expect(render('a\r\n{% if true %}\r\nb\r\n{% endif %}')).toBe('a\nb\n');
  });

  it('knows the day', () => {
    const day = new Date(2024, 6, 4, 15, 5, 9);
    const source = "{{ strftime_now('%d %b %Y, %A %-d %B %H:%M:%S %I %p') }}";
    expect(new Template(source).render({}, () => day)).toBe('04 Jul 2024, Thursday 4 July 15:05:09 03 PM');
  });

  it('cannot make a text of any length', () => {
    expect(() => render("{{ 'ab' * 1000000000 }}")).toThrow('to repeat');
  });
});
