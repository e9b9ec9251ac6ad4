// Small templates, one construct each, against Python's jinja2: every operator, filter, test, method and
// white space rule, and what must fail.
#include "text/jinja_oracle.h"

namespace narrow::text {
namespace {

using Json = nlohmann::ordered_json;

Json variables() {
  return Json::parse(R"json({
    "s": "Hello World", "u": "Grüße, 世界 🌍 ßtraße", "n": 7, "neg": -7, "f": 2.5, "t": true, "no": false, "nil": null,
    "lst": [3, 1, 2], "strs": ["b", "A", "c", "a"], "empty": [], "d": {"b": 1, "a": [1, 2, {"x": null}], "C": "z"},
    "users": [{"name": "Zoe", "age": 30, "tag": {"k": "x"}}, {"name": "adam", "age": 25, "tag": {"k": "y"}},
              {"name": "Bob", "age": 30, "tag": {"k": "x"}}],
    "lines": "one\ntwo\n\n  three", "q": "it's \"quoted\"\\ \u0001\u007f\u00a0\u200b", "html": "<a href='x'>&\"</a>",
    "big": 1e300, "tiny": 1.5e-7, "mixed": [1, "a", null, true, 2.0, [1], {"k": "v"}], "e16": 1e16, "third": 0.1
  })json");
}

void run(const std::vector<std::string>& snippets, int least_rendered) {
  NARROW_REQUIRE_PYTHON();
  std::vector<RenderCase> cases;
  for (const std::string& s : snippets) {
    RenderCase c;
    c.name = s;
    c.source = s;
    c.options.extra = variables();
    c.options.messages = Json::parse(R"([{"role": "user", "content": "hi"}])");
    cases.push_back(std::move(c));
  }
  EXPECT_GE(expect_same_as_jinja2(cases), least_rendered);
}

TEST(JinjaSnippets, WhiteSpace) {
  run({"a\n",
       "a\n\n",
       "\n",
       "",
       "a\r\nb\r\n",
       "a\rb",
       "{% if t %}\nx\n{% endif %}\ny",
       "  {% if t %}  \nx{% endif %}",
       "a {%- if t %} b {% endif -%} c",
       "a\n  {%+ if t %}x{% endif %}",
       "{% if t +%}\nx{% endif %}",
       "a  {{- s -}}  b",
       "a\n  {{ s }}\n  b",
       "{# c #}\nx",
       "  {# c #}\nx",
       "a {#- c -#} b",
       "a\n {#+ c +#}\nb",
       "{% raw %}{{ x }}{% y %}{% endraw %}",
       "{% raw -%}  {{ x }}  {%- endraw %}\nz",
       "  {% raw %}\n a{% endraw %}\nb",
       "a\n\n  {%- if t -%}  \n\n b\n{%- endif %}",
       "x {% set a = 1 %} y\n{% set b = 2 %}\nz",
       "\t{% if t %}\n\tq\n\t{% endif %}\n",
       "a{% if t %}\r\nb{% endif %}",
       "{%- set a = 1 -%}\n\n{{ a }}",
       "{{ '\n' }}x\n",
       "{% if t %}{% endif %}\n\n\nx",
       "x\n\n\n{%- if t %}y{% endif %}",
       "{% for i in lst %}\n  {{ i }}\n{% endfor %}\n",
       "{{ s -}}\n\n  x",
       "{%if t%}a{%endif%}",
       "{{s}}{{-n-}}{{s}}",
       "{#",
       "{# a",
       "{% raw %}x",
       "\xc2\xa0{%- if t %}a{% endif %}",
       "{% raw %}a{% endraw",
       "{#-#}x",
       "a{# b #}{# c #}\n d"},
      30);
}

TEST(JinjaSnippets, LiteralsAndPrinting) {
  run({"{{ 1 }} {{ -1 }} {{ 1.0 }} {{ 1e3 }} {{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1.5e-10 }}",
       "{{ 1e22 }} {{ 1e15 }} {{ 123456789.123 }}",
       "{{ true }} {{ True }} {{ none }} {{ None }} {{ false }}",
       "{{ 'a' 'b' \"c\" }}",
       R"({{ 'a\nb\t\'\"\\\x41\u00e9\U0001F600\101\q' }})",
       R"({{ '\xzz' }})",
       R"({{ '\u12' }})",
       "{{ 'ünï' }}",
       "{{ [] }}{{ {} }}{{ () }}",
       "{{ (1,) }} {{ (1, 2) }} {{ 1, 2 }} {{ [1, 'a', none, 1.5, true] }}",
       "{{ {'a': 1, \"b\": [2, {'c': none}], 3: 4.0} }}",
       "{{ d }}",
       "{{ mixed }}",
       "{{ [q, u, html] }}",
       "{{ big }} {{ tiny }} {{ e16 }} {{ third }}",
       "{{ nil }}",
       "{{ missing }}",
       "{{ [missing] }}",
       "{{ range(3) }} {{ range(1, 10, 2) }} {{ range(5, 0, -1) | list }}",
       "{{ d.keys() }} {{ d.values() }} {{ d.items() }}",
       "{{ 'it\\'s' }} {{ ['it\\'s', 'a\"b', 'a\\'\"'] }}",
       "{{ 007 }}",
       "{{ 1__0 }}",
       "{{ 1.}}",
       "{{ 'open }}",
       "{{ [1, 2,] }} {{ {'a': 1,} }} {{ (1, 2,) }}",
       "{{ {1: 'a', 1.0: 'b', true: 'c'} }}",
       "{{ {[1]: 2} }}",
       "{{ {(1, 2): 3} }}",
       "{{ 9007199254740993 }} {{ 0.1 + 0.2 }} {{ 1/3 }} {{ 100.0 }} {{ 1e-4 }} {{ 1e-5 }} {{ -0.0 }}",
       "{{ messages }}"},
      20);
}

TEST(JinjaSnippets, Operators) {
  run({"{{ 1 + 2 * 3 ** 2 - 4 }}",
       "{{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ -7.5 "
       "% 2 }}",
       "{{ 4 / 2 }}",
       "{{ 2 ** -1 }} {{ 2 ** 0.5 }} {{ 2 ** 3 ** 2 }}",
       "{{ -2 ** 2 }}",
       "{{ 1 / 0 }}",
       "{{ 1 // 0 }}",
       "{{ 1 % 0 }}",
       "{{ 1.0 / 0 }}",
       "{{ 'a' + 'b' }}",
       "{{ 'a' + 1 }}",
       "{{ 1 + 'a' }}",
       "{{ 'a' ~ 1 ~ none ~ missing ~ 1.5 ~ [1] }}",
       "{{ 'ab' * 3 }} {{ 2 * 'x' }} {{ 'a' * -1 }}",
       "{{ [1] + [2] }} {{ [1, 2] * 2 }} {{ (1,) + (2,) }}",
       "{{ [1] + (2,) }}",
       "{{ true + 1 }} {{ true + true }} {{ -true }} {{ +1.5 }}",
       "{{ 'a' - 'b' }}",
       "{{ -'a' }}",
       "{{ none + 1 }}",
       "{{ missing + 1 }}",
       "{{ 1 - missing }}",
       "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 >= 2 != 1 }}",
       "{{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ none == none }} {{ [1] == [1.0] }} {{ (1,) == [1] "
       "}} {{ d == d }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}",
       "{{ 'a' < 'b' }} {{ 'a' < 'B' }} {{ [1, 2] < [1, 3] }} {{ [1] < [1, 0] }}",
       "{{ 1 < 'a' }}",
       "{{ none < 1 }}",
       "{{ missing < 1 }}",
       "{{ missing == missing }} {{ missing == none }} {{ missing != 1 }}",
       "{{ 'el' in s }} {{ 'x' not in s }} {{ 3 in lst }} {{ 'b' in d }} {{ 'z' in d }} {{ 1 in missing }}",
       "{{ 1 in s }}",
       "{{ 1 in 5 }}",
       "{{ [1] in d }}",
       "{{ not t }} {{ not empty }} {{ not not s }}",
       "{{ t and s }} {{ no or n }} {{ empty or 'x' }} {{ t and no or n }} {{ no and missing.x }}",
       "{{ not t == no }}",
       "{{ 'a' if t else 'b' }} {{ 'a' if no else 'b' }} {{ 'a' if no }}|",
       "{{ ('a' if no) is defined }}",
       "{{ 1 if t else 2 if no else 3 }}",
       "{{ 'x' if no else 'y' if no else 'z' }}",
       "{{ 2 + 3 ~ 4 }}",
       "{{ 10 - 2 - 3 }} {{ 100 / 10 / 5 }} {{ 2 * 3 % 4 }}",
       "{{ -n | abs }} {{ neg | abs }} {{ -2.5 | abs }}",
       "{{ n is odd and n > 3 or no }}",
       "{{ '%s is %d' % ('a', 3) }} {{ '%05.2f|%-5s|%5s|%x' % (3.14159, 'ab', 'cd', 255) }} {{ '%s' % 'x' }} "
       "{{ '%d%%' % 5 }}",
       "{{ '%d' % 'a' }}",
       "{{ '%s %s' % 'a' }}",
       "{{ '%s' % ('a', 'b') }}",
       "{{ '%(a)s-%(b)03d' % {'a': 'x', 'b': 7} }}",
       "{{ '%r %+d %e %g %o %X %c' % ('a', 3, 12345.678, 0.0001, 8, 255, 'z') }}",
       "{{ 9223372036854775807 - 1 }}",
       "{{ 1 and 2 }}{{ 0 or none }}",
       "{{ 3 in [1, 2] or 'a' in 'abc' and not no }}",
       "{{ '<a>'|safe + '<b>' }} {{ '<b>' + '<a>'|safe }}",
       "{{ s|escape }} {{ html|e }} {{ html|e|e }} {{ html|forceescape }}"},
      30);
}

TEST(JinjaSnippets, Access) {
  run({"{{ d.b }} {{ d['b'] }} {{ d.a[2].x }} {{ d.a.0 }} {{ d.a[-1] }} {{ d.nope }}|",
       "{{ d.nope.more }}",
       "{{ d['nope']['more'] }}",
       "{{ missing.x }}",
       "{{ missing['x'] }}",
       "{{ nil.x }}|",
       "{{ nil.x.y }}",
       "{{ lst[0] }} {{ lst[-1] }} {{ lst[9] }}|{{ lst['a'] }}|",
       "{{ s[0] }} {{ s[-1] }} {{ u[8] }} {{ s[99] }}|",
       "{{ s[1:3] }} {{ s[:-1] }} {{ s[::-1] }} {{ s[::2] }} {{ s[5:] }} {{ s[-3:] }} {{ s[3:1] }}|",
       "{{ u[::-1] }} {{ u[2:9] }}",
       "{{ lst[1:] }} {{ lst[::-1] }} {{ lst[:2] }} {{ lst[-2:] }} {{ lst[5:] }} {{ lst[::-2] }}",
       "{{ lst[::0] }}",
       "{{ d[1:] }}",
       "{{ missing[1:] }}",
       "{{ nil[1:] }}",
       "{{ lst['x':] }}",
       "{{ (1, 2, 3)[1:] }} {{ range(5)[1:3] | list }}",
       "{{ d.items is callable }}|{{ d.items() | list }}",
       "{{ {'items': 5}['items'] }}",
       "{{ {'items': 5}.items() | list }}",
       "{{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 9) }} {{ d.get('q', default=9) }}",
       "{{ d.update({'x': 1}) }}",
       "{{ lst.append(4) }}",
       "{{ lst.append }}|{{ d.pop }}|",
       "{{ lst.pop() }}",
       "{{ d.__class__ }}|",
       "{{ s.__class__.mro() }}",
       "{{ d.keys() | list }} {{ d.values() | list | length }}",
       "{{ lst.index(1) }} {{ lst.count(3) }} {{ lst.copy() }}",
       "{{ lst.index(99) }}",
       "{{ users[0].name }} {{ users[0]['tag']['k'] }} {{ users[-1].tag.k }}",
       "{{ s.nope }}|",
       "{{ s.nope() }}",
       "{{ n() }}",
       "{{ missing() }}",
       "{{ 'a,b'.split(',')[1] }}",
       "{{ d['a'][0:2] }}",
       "{{ (d)['b'] }} {{ {'x': 1}.x }} {{ [1, 2][0] }} {{ 'abc'[1] }}",
       "{{ d | attr('b') }}|{{ s | attr('upper') is callable }}",
       "{{ messages[0]['role'] }} {{ messages[0].content }} {{ messages[1] }}|",
       "{{ d[missing] }}|",
       "{{ d[[1]] }}|",
       "{{ 'abc'['upper']() }}",
       "{{ lst[true] }}",
       "{{ d.a[2]['x'] is none }}",
       "{{ dict(a=1, **{'b': 2}) }} {{ dict([('x', 1)]) }} {{ dict({'y': 2}, z=3) }}",
       "{{ 1.5.x }}|",
       "{{ n.x }}|"},
      25);
}

TEST(JinjaSnippets, StringMethods) {
  run({"{{ '  a b '.strip() }}|{{ '  a '.lstrip() }}|{{ ' a  '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ "
       "'abcba'.strip('ab') }}|{{ '\n a\n'.strip('\n') }}|",
       "{{ 'a b  c'.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ''.split() }} {{ "
       "''.split(',') }} {{ ' a  b '.split(none, 1) }}",
       "{{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b c '.rsplit(none, 1) }} {{ 'a b c'.rsplit() }}",
       "{{ 'a,b,c'.split(sep=',', maxsplit=1) }}",
       "{{ 'abc'.split('') }}",
       "{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.capitalize() }} {{ s.swapcase() }}",
       "{{ u.upper() }} {{ u.lower() }} {{ u.title() }} {{ u.capitalize() }}",
       "{{ \"it's o'clock\".title() }}",
       "{{ s.startswith('He') }} {{ s.endswith('ld') }} {{ s.startswith(('x', 'H')) }} {{ "
       "s.startswith('World', 6) }} {{ s.endswith('o', 0, 5) }}",
       "{{ s.startswith(1) }}",
       "{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ 'abc'.replace('', '-') }} {{ "
       "'abc'.replace('', '-', 2) }} {{ s.replace('xyz', '') }}",
       "{{ s.find('o') }} {{ s.rfind('o') }} {{ s.find('q') }} {{ s.index('W') }} {{ s.count('l') }} {{ "
       "u.find('世') }} {{ s.find('o', 5) }}",
       "{{ s.index('q') }}",
       "{{ ', '.join(strs) }} {{ '-'.join('abc') }} {{ ''.join([]) }}",
       "{{ ','.join(lst) }}",
       "{{ '5'.isdigit() }} {{ 'a5'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ ''.isdigit() }} "
       "{{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ 'Ab Cd'.istitle() }} {{ '½'.isnumeric() }} {{ "
       "'a_1'.isidentifier() }}",
       "{{ lines.splitlines() }} {{ 'a\r\nb'.splitlines(true) }}",
       "{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('-') }}",
       "{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }}",
       "{{ 'ab'.center(7) }}|{{ 'ab'.center(6, '*') }}|{{ 'abc'.center(6, '*') }}|{{ 'ab'.ljust(4, '.') "
       "}}|{{ 'ab'.rjust(4) }}|{{ '-5'.zfill(4) }}|",
       "{{ 'a\tb'.expandtabs(4) }}",
       "{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format('a', 'b') }} {{ '{x}'.format(x=5) }} {{ "
       "'{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{:x}|{:%}'.format('a', 'b', 'c', 42, 3.14159, 1234567, 255, "
       "0.5) }}",
       "{{ '{0[a]} {1.b}'.format({'a': 1}, {'b': 2}) }} {{ '{{}}'.format() }} {{ '{!r}'.format('a') }}",
       "{{ '{} {}'.format(1) }}",
       "{{ '{'.format() }}",
       "{{ '{:d}'.format('a') }}",
       "{{ 'ΑΣ'.lower() }}",
       "{{ 'Straße'.upper() }}",
       "{{ s.strip(1) }}",
       "{{ 'aXbX'.split('X') | length }}",
       "{{ 'a' .upper() }}",
       "{{ '%s'.format(1) }}"},
      20);
}

TEST(JinjaSnippets, Filters) {
  run({"{{ s|length }} {{ u|length }} {{ lst|count }} {{ d|length }} {{ missing|length }}",
       "{{ n|length }}",
       "{{ nil|length }}",
       "{{ ' a '|trim }}|{{ 'xax'|trim('x') }}|{{ 5|trim }}",
       "{{ s|upper }} {{ s|lower }} {{ 'foo bar-baz (qux)'|title }} {{ s|capitalize }} {{ nil|upper }}",
       "{{ missing|default('d') }} {{ ''|default('d') }}|{{ ''|default('d', true) }} {{ nil|d('x', "
       "boolean=true) }} {{ missing|d }}|",
       "{{ missing.x|default('d') }}",
       "{{ lst|join }} {{ lst|join('-') }} {{ users|join(', ', attribute='name') }} {{ s|join('.') }}",
       "{{ lst|first }} {{ lst|last }} {{ s|first }} {{ empty|first }}|{{ d|first }} {{ d|last }}",
       "{{ s|list }} {{ d|list }} {{ n|list }}",
       "{{ (1, 2)|list }}",
       "{{ users|map(attribute='name')|list }} {{ users|map(attribute='tag.k')|join }} {{ "
       "users|map(attribute='zip', default='none')|list }} {{ strs|map('upper')|join }} {{ "
       "lst|map('string')|list }} {{ strs|map('replace', 'a', 'Q')|list }}",
       "{{ users|map('nope')|list }}",
       "{{ lst|map|list }}",
       "{{ lst|select('odd')|list }} {{ mixed|select|list }} {{ lst|select('gt', 1)|list }} {{ "
       "lst|reject('odd')|list }} {{ mixed|reject|list }} {{ mixed|select('string')|list }}",
       "{{ users|selectattr('age', 'equalto', 30)|map(attribute='name')|list }} {{ users|rejectattr('age', "
       "'==', 30)|list|length }} {{ users|selectattr('tag.k', 'eq', 'x')|list|length }} {{ "
       "users|selectattr('zip')|list }}",
       "{{ users|selectattr('zip', 'defined')|list }}",
       "{{ lst|select('nope')|list }}",
       "{{ lst|selectattr|list }}",
       "{{ d|tojson }} {{ u|tojson }} {{ q|tojson }} {{ html|tojson }}",
       "{{ d|tojson(indent=2) }}",
       "{{ mixed|tojson(indent=4) }} {{ []|tojson(indent=2) }} {{ {}|tojson(indent=2) }}",
       "{{ d|tojson(separators=(',', ':')) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ "
       "u|tojson(ensure_ascii=true) }} {{ [1.0, 1e100, 1e-9, none, true]|tojson }}",
       "{{ d|tojson(indent='\t') }}",
       "{{ {1: 2, none: 3, true: 4, 1.5: 6}|tojson }}",
       "{{ missing|tojson }}",
       "{{ d.items()|tojson }}",
       "{{ (1, 2)|tojson }} {{ range(3)|list|tojson }}",
       "{{ range(3)|tojson }}",
       "{{ namespace()|tojson }}",
       "{{ d|tojson(2) }}",
       "{{ d|tojson(indent=0) }}",
       "{{ d|items|list }} {{ missing|items|list }}",
       "{{ lst|items|list }}",
       "{{ d|dictsort }} {{ {'b': 2, 'A': 3, 'c': 1}|dictsort }} {{ {'b': 2, 'A': 3}|dictsort(true) }} {{ "
       "{'b': 2, 'a': 3}|dictsort(by='value', reverse=true) }}",
       "{{ d|dictsort(by='x') }}",
       "{{ lst|sort }} {{ strs|sort }} {{ strs|sort(case_sensitive=true) }} {{ lst|sort(reverse=true) }} {{ "
       "users|sort(attribute='age')|map(attribute='name')|list }} {{ "
       "users|sort(attribute='age,name')|map(attribute='name')|list }}",
       "{{ mixed|sort }}",
       "{{ strs|unique|list }} {{ [1, 1.0, 2, '1']|unique|list }} {{ "
       "users|unique(attribute='age')|map(attribute='name')|list }}",
       "{{ [[1]]|unique|list }}",
       "{{ lst|reverse|list }} {{ s|reverse }} {{ d|reverse|list }}",
       "{{ n|reverse }}",
       "{{ s|replace('l', 'L') }} {{ s|replace('l', 'L', 2) }} {{ 121|replace(1, 3) }} {{ 'aaa'|replace('a', "
       "'b', count=1) }}",
       "{{ 5|string + 'a' }} {{ nil|string }} {{ d|string }}",
       "{{ '42'|int }} {{ ' 4_2 '|int }} {{ '42.9'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ "
       "'0x1f'|int(base=16) }} {{ '1010'|int(0, 2) }} {{ 3.99|int }} {{ -3.99|int }} {{ true|int }} {{ "
       "nil|int }} {{ 'inf'|int }} {{ '-5'|int }} {{ ''|int }}",
       "{{ missing|int }}",
       "{{ '1.5'|float }} {{ 'x'|float }} {{ 3|float }} {{ '1e3'|float }} {{ 'x'|float(2.5) }} {{ "
       "'nan'|float }} {{ '-inf'|float }} {{ '.5'|float }} {{ '5.'|float }}",
       "{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 2.1|round(method='ceil') }} {{ 2.9|round(0, "
       "'floor') }} {{ 42|round }} {{ 1234.5|round(-2) }} {{ 1250|round(-2) }} {{ 42|round(1, 'ceil') }} {{ "
       "-2.5|round }}",
       "{{ 2.5|round(method='x') }}",
       "{{ lst|min }} {{ lst|max }} {{ strs|min }} {{ strs|max(case_sensitive=true) }} {{ empty|max }}|{{ "
       "users|max(attribute='age') }}",
       "{{ lst|sum }} {{ users|sum(attribute='age') }} {{ lst|sum(start=10) }} {{ empty|sum }} {{ [1.5, "
       "2]|sum }}",
       "{{ strs|sum }}",
       "{{ [1, 2, 3, 4, 5]|batch(2)|list }} {{ [1, 2, 3]|batch(2, 'x')|list }}",
       "{{ [1, 2, 3, 4, 5]|slice(3)|list }} {{ [1, 2, 3, 4]|slice(3, 'x')|list }}",
       "{{ lines|indent }}|{{ lines|indent(2, true) }}|{{ lines|indent(2, blank=true) }}|{{ lines|indent('> "
       "') }}|{{ ''|indent }}|",
       "{{ n|indent }}",
       "{{ '%s-%s'|format(1, 'b') }} {{ '%(a)s'|format(a=3) }}",
       "{{ u|wordcount }} {{ s|wordcount }} {{ 'a-b_c d'|wordcount }}",
       "{{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(9, true) }} {{ 'foo bar baz "
       "qux'|truncate(11) }} {{ 'foo bar baz qux'|truncate(11, false, '...', 0) }}",
       "{{ 'ab'|center(7) }}|",
       "{{ users|groupby('age')|list }}",
       "{% for k, v in users|groupby('tag.k') %}{{ k }}:{{ v|length }} {% endfor %}{% for g in "
       "users|groupby('age') %}{{ g.grouper }}{{ g.list|length }}{% endfor %}",
       "{{ s|nope }}",
       "{% if no %}{{ s|nope }}{% endif %}x",
       "{% if t %}{{ s|nope }}{% endif %}x",
       "{{ s|upper|lower|title }}",
       "{{ lst|map('string')|length }}",
       "{{ s|upper(1) }}",
       "{{ s|replace('a') }}",
       "{{ s|default(nope=1) }}",
       "{{ lst|first|string|length }}",
       "{{ (lst|select('odd')) is iterable }} {{ (lst|select('odd')) is sequence }} {{ 'y' if "
       "lst|select('equalto', 9) else 'n' }}",
       "{% set g = lst|select('odd') %}{{ g|list }}{{ g|list }}",
       "{{ lst|select('in', [1, 2])|list }}",
       "{{ -1|abs }} {{ 'a'|abs }}",
       "{{ s|safe }} {{ html|safe|upper }}",
       "{{ users|map(attribute='name')|map('lower')|sort|join(',') }}",
       "{{ [3, 1]|sort|first }}",
       "{{ missing|upper }}|{{ missing|list }}|{{ missing|join }}|{{ missing|first }}|{{ missing|last }}|{{ "
       "missing|sum }}|{{ missing|sort }}|{{ missing|string }}|{{ missing|trim }}|"},
      45);
}

TEST(JinjaSnippets, Tests) {
  std::vector<std::string> snippets = {
      "{{ n is divisibleby 7 }} {{ n is divisibleby(2) }}",
      "{{ n is eq 7 }} {{ n is ne 7 }} {{ n is lt 8 }} {{ n is le 7 }} {{ n is gt 7 }} {{ n is ge 7 }} {{ n "
      "is equalto 7 }} {{ n is greaterthan 3 }} {{ n is lessthan 3 }}",
      "{{ 3 is in lst }} {{ 9 is not in lst }} {{ 'a' is in 'abc' }}",
      "{{ t is sameas true }} {{ 1 is sameas true }} {{ nil is sameas none }} {{ lst is sameas lst }} {{ [] "
      "is sameas [] }}",
      "{{ 'a' is nope }}",
      "{{ n is defined is defined }}",
      "{{ d.b is defined and d.zz is not defined }}",
      "{{ s is string and s is not mapping }}",
      "{{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }}",
      "{{ range is callable }} {{ s is callable }} {{ s.upper is callable }}",
      "{{ 'a' is odd }}",
      "{{ html|e is escaped }}",
      "{{ n is divisibleby 0 }}",
      "{{ x is defined if x is defined else 'u' }}",
      "{{ not missing is defined }}",
      "{{ n is not none and n is number }}"};
  for (const char* v : {"s", "n", "f", "t", "nil", "lst", "d", "missing", "(1, 2)", "range(3)", "d.items()",
                        "namespace()", "d.keys()", "s.upper"}) {
    std::string row;
    for (const char* test :
         {"defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string",
          "mapping", "sequence", "iterable", "callable", "lower", "upper"}) {
      row += std::string("{{ ") + v + " is " + test + " }} ";
    }
    snippets.push_back(row);
  }
  for (const char* v : {"7", "8", "2.0", "true"})
    snippets.push_back(std::string("{{ ") + v + " is odd }} {{ " + v + " is even }}");
  run(snippets, 25);
}

TEST(JinjaSnippets, Statements) {
  run({"{% set a = 1 %}{{ a }}",
       "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
       "{% set a, b = [1] %}",
       "{% set a %}x{{ n }}{% endset %}{{ a }}",
       "{% set a | upper %}x{% endset %}{{ a }}",
       "{% set d.x = 1 %}",
       "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{% set ns.b = 3 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}|{{ "
       "ns['a'] }}",
       "{% set none = 1 %}",
       "{% set 'a' = 1 %}",
       "{% set x = 1 %}{% for i in lst %}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
       "{% set ns = namespace(x=0) %}{% for i in lst %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
       "{% if t %}{% set y = 5 %}{% endif %}{{ y }}",
       "{% for i in lst %}{{ x }}{% set x = i %}{% endfor %}",
       "{% for i in [1] %}{% if t %}{% set n = 99 %}{% endif %}{{ n }}{% endfor %}{{ n }}",
       "{% for i in lst %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length "
       "}}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }} {% "
       "endfor %}",
       "{% for i in lst %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }}{% endfor %}",
       "{% for i in empty %}x{% else %}none{% endfor %}",
       "{% for i in lst %}{% break %}{% else %}e{% endfor %}",
       "{% for i in lst %}{{ i }}{% else %}e{% endfor %}",
       "{% for i in lst if i > 1 %}{{ loop.index }}:{{ i }} {% else %}e{% endfor %}",
       "{% for i in lst if i > 9 %}x{% else %}e{% endfor %}",
       "{% for i in lst %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
       "{% for i in lst %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}",
       "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
       "{% for k, v in d.items() if k != 'b' %}{{ k }}{{ loop.last }}{% endfor %}",
       "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
       "{% for a, b in lst %}{% endfor %}",
       "{% for c in 'abc' %}{{ c }},{% endfor %}",
       "{% for k in d %}{{ k }}{% endfor %}",
       "{% for i in n %}{% endfor %}",
       "{% for i in nil %}{% endfor %}",
       "{% for i in missing %}x{% else %}u{% endfor %}",
       "{% for i in lst %}{% for j in lst %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
       "{% for i in lst %}{% set outer = loop %}{% for j in [1] %}{{ outer.index }}{% endfor %}{% endfor %}",
       "{% for i in [1, [2, [3]]] recursive %}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}@{{ "
       "loop.depth }}{% endif %}{% endfor %}",
       "{% for i in lst %}{{ loop([1]) }}{% endfor %}",
       "{% for i in lst|sort if not ns %}{{ i }}{% endfor %}",
       "{% set ns = namespace(stop=false) %}{% for i in lst if not ns.stop %}{{ i }}{% set ns.stop = true "
       "%}{% endfor %}",
       "{% set ns = namespace(stop=false) %}{% for i in lst if not ns.stop %}{{ i }}{{ loop.last }}{% set "
       "ns.stop = true %}{% endfor %}",
       "{% for lst in lst %}{{ lst }}{% endfor %}{{ lst }}",
       "{% for i in range(3) %}{{ i }}{% endfor %}{{ i }}|{{ loop }}|",
       "{% for i in 1, 2, 3 %}{{ i }}{% endfor %}",
       "{% if no %}a{% elif n == 7 %}b{% else %}c{% endif %}",
       "{% if no %}a{% elif no %}b{% else %}c{% endif %}",
       "{% if missing %}a{% endif %}b",
       "{% if t: %}x{% endif %}",
       "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=4, a=5) }} {{ m() "
       "}}",
       "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
       "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(x=2) }}",
       "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
       "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",
       "{% macro m() %}{{ n }}{{ later }}{% endmacro %}{% set later = 5 %}{{ m() }}",
       "{% macro m() %}{% set n = 1 %}{{ n }}{% endmacro %}{{ m() }}{{ n }}",
       "{% macro f(x) %}{{ x }}{% if x > 0 %}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
       "{% macro m(a) %}{% endmacro %}{{ m.name }}|{{ m(1) }}|",
       "{% macro m(a=1, b) %}{% endmacro %}",
       "{% macro m(x) %}[{{ caller() }}|{{ x }}]{% endmacro %}{% call m(5) %}body{{ n }}{% endcall %}",
       "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b=3) m() %}{{ a }}{{ b }}{% endcall %}",
       "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
       "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
       "{% call n %}{% endcall %}",
       "{% for i in lst %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
       "{% filter upper %}abc{{ s }}{% endfilter %}",
       "{% filter replace('a', 'b')|upper %}abc{% endfilter %}",
       "{% filter upper %}{% set q = 1 %}{% endfilter %}{{ q }}",
       "{% with a=1, b=n %}{{ a }}{{ b }}{% endwith %}{{ a }}|",
       "{% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z }}|",
       "{% generation %}a{{ n }}{% set g = 1 %}{% endgeneration %}{{ g }}|",
       "{% print n, s %}",
       "{% block b %}x{{ n }}{% endblock %}",
       "{% for i in [1] %}{% block b %}{{ i }}{% endblock %}{% endfor %}",
       "{% for i in [1] %}{% block b scoped %}{{ i }}{% endblock b %}{% endfor %}",
       "{% do n %}",
       "{% include 'x' %}",
       "{% extends 'x' %}",
       "{% break %}",
       "{% unknown %}",
       "{% if t %}",
       "{% endif %}",
       "{% for i in lst %}",
       "{% for i lst %}{% endfor %}",
       "{% if %}{% endif %}",
       "{% set %}",
       "{{ }}",
       "{{ 1 + }}",
       "{{ (1 }}",
       "{{ 1) }}",
       "{{ [1 }}",
       "{{ {1 } }}",
       "{{ a b }}",
       "{{ 'a'|}}",
       "{{ a. }}",
       "{{ $ }}",
       "{% set x = %}",
       "{{ f(a=1, 2) }}",
       "{{ x is }}",
       "{% macro %}{% endmacro %}",
       "{{ n",
       "{% n",
       "{{ 1 }",
       "{% if t %}a{% else %}b{% else %}c{% endif %}",
       "{{ raise_exception('boom') }}",
       "{% if no %}{{ raise_exception('boom') }}{% endif %}ok",
       "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %p') }}",
       "{{ strftime_now is defined }} {{ raise_exception is defined }}",
       "{% set j = joiner('; ') %}{{ j() }}{{ j() }}{{ j() }}",
       "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}",
       "{{ range(100001)|length }}",
       "{{ range(0, 10, 0) }}",
       "{{ range('a') }}",
       "{{ namespace(a=1).a }}",
       "{{ dict(a=1).a }}",
       "{% macro m(*a) %}{% endmacro %}",
       "{{ '-'.join(*[['a', 'b']]) }} {{ dict(**{'a': 1}) }}",
       "{% set x = namespace() %}{% set x.y = namespace(z=3) %}{{ x.y.z }}",
       "{% set messages = messages[1:] %}{{ messages }}",
       "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
       "{%- macro r(p, depth=0) -%}{{ '  ' * depth }}{{ p.name }}{% for c in p.kids %}{{ r(c, depth + 1) "
       "}}{% endfor %}{%- endmacro -%}{{ r({'name': 'x', 'kids': [{'name': 'y', 'kids': []}]}) }}",
       "{% set x = 5 if no %}{{ x }}|"},
      70);
}

}  // namespace
}  // namespace narrow::text
