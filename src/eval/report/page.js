// Draws the sections of the document in #report-data; knows nothing of what they show. All text goes into the page as
// text, never as markup. What happened is left in <html data-...> for the check in scripts/lib/check_report:
// charts (drawn), blank (drawn, but nothing is to be seen), errors, blocked (requests refused), requests, ready.
'use strict';
(() => {
  const root = document.documentElement;
  const state = {charts: 0, blank: 0, errors: 0, blocked: 0, requests: 0, problem: ''};
  const publish = () => Object.assign(root.dataset, state);
  const fail = (what) => {
    state.errors += 1;
    state.problem = String(what);
    const line = document.getElementById('problem');
    line.hidden = false;
    line.textContent = 'Part of this report could not be drawn: ' + what;
    publish();
  };
  addEventListener('error', (e) => fail(e.message));
  addEventListener('unhandledrejection', (e) => fail(e.reason));
  addEventListener('securitypolicyviolation', () => { state.blocked += 1; publish(); });

  const element = (tag, className, text) => {
    const e = document.createElement(tag);
    if (className) e.className = className;
    if (text !== undefined) e.textContent = text;
    return e;
  };

  // Numbers.
  const digits = (x) => {
    if (x === 0) return '0';
    const size = Math.abs(x);
    if (size >= 1e6 || size < 1e-4) return x.toExponential(2).replace('e+', 'e');
    return size >= 1000 ? x.toFixed(0) : Number(x.toPrecision(4)).toString();
  };
  const bytes = (x) => {
    const size = Math.abs(x);
    for (const [unit, name, places] of [[1e9, 'GB', 2], [1e6, 'MB', size < 1e7 ? 2 : 1], [1e3, 'kB', 1]]) {
      if (size >= unit) return (x / unit).toFixed(places) + ' ' + name;
    }
    return x.toFixed(0) + ' B';
  };
  const percent = (x) => {
    const p = 100 * x, size = Math.abs(p);
    return (size >= 10 || p === 0 ? p.toFixed(1) : size >= 0.01 ? Number(p.toPrecision(3)).toString() : p.toExponential(1)) + ' %';
  };
  const format = (x, how) => {
    if (x === null || x === undefined || !Number.isFinite(x)) return '';
    const sign = how[0] === '+' && x > 0 ? '+' : '';
    switch (how.replace('+', '')) {
      case 'integer': return sign + Math.round(x).toLocaleString('en');
      case 'percent': return sign + percent(x);
      case 'bytes': return sign + bytes(x);
      default: return sign + digits(x);
    }
  };
  // Ticks are round: fewer digits than values.
  const tick = (x, how) => format(Number(Number(x).toPrecision(6)), how).replace(/(\.\d*?)0+( |$)/, '$1$2').replace(/\.( |$)/, '$1');

  // Colours: told apart by people who see red and green alike (Okabe & Ito 2008), lighter on dark pages.
  const light = ['#0072b2', '#d55e00', '#009e73', '#b0579a', '#b07a00', '#3a9ad9', '#7a4fbf', '#8c564b', '#4d7f17'];
  const dark = ['#56b4e9', '#ff8c42', '#2fc79a', '#e08fc8', '#e6b422', '#9ecbff', '#b79bff', '#cf9a8d', '#a5d65c'];
  const darkPage = matchMedia('(prefers-color-scheme: dark)');
  const color = (i) => (darkPage.matches ? dark : light)[i % light.length];
  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // Error bars, then names of points where they find room.
  const annotations = {
    id: 'annotations',
    afterDatasetsDraw(chart) {
      const ctx = chart.ctx, area = chart.chartArea, taken = [];
      ctx.save();
      chart.data.datasets.forEach((d, i) => {
        if (!chart.isDatasetVisible(i) || !d.error) return;
        ctx.strokeStyle = d.borderColor;
        ctx.lineWidth = 1.5;
        chart.getDatasetMeta(i).data.forEach((point, k) => {
          const y = d.data[k].y ?? d.data[k], half = d.error[k];
          if (!(half > 0)) return;
          const low = Math.max(chart.scales.y.min, y - half);
          const [a, b] = [chart.scales.y.getPixelForValue(low), chart.scales.y.getPixelForValue(y + half)];
          ctx.beginPath();
          ctx.moveTo(point.x, a); ctx.lineTo(point.x, b);
          ctx.moveTo(point.x - 4, a); ctx.lineTo(point.x + 4, a);
          ctx.moveTo(point.x - 4, b); ctx.lineTo(point.x + 4, b);
          ctx.stroke();
        });
      });
      ctx.font = '12px ' + Chart.defaults.font.family;
      ctx.fillStyle = variable('--ink');
      ctx.textBaseline = 'middle';
      const points = [];
      chart.data.datasets.forEach((d, i) => {
        if (!chart.isDatasetVisible(i) || !d.names) return;
        chart.getDatasetMeta(i).data.forEach((point, k) => {
          if (!point.skip) points.push({x: point.x, y: point.y, name: d.names[k]});
        });
      });
      for (const p of points) taken.push({x: p.x - 5, y: p.y - 5, w: 10, h: 10});
      for (const p of points) {
        if (!p.name) continue;
        const w = ctx.measureText(p.name).width, h = 14;
        const places = [[9, -h / 2], [-9 - w, -h / 2], [-w / 2, -9 - h], [-w / 2, 9], [9, -h - 4], [9, 4], [-9 - w, -h - 4], [-9 - w, 4]];
        for (const [dx, dy] of places) {
          const box = {x: p.x + dx, y: p.y + dy, w, h};
          const inside = box.x >= area.left && box.x + w <= area.right && box.y >= area.top && box.y + h <= area.bottom;
          if (!inside || taken.some((t) => t.x < box.x + w && box.x < t.x + t.w && t.y < box.y + h && box.y < t.y + t.h)) continue;
          taken.push(box);
          ctx.fillText(p.name, box.x, box.y + h / 2);
          break;
        }
      }
      ctx.restore();
    },
  };

  const dataset = (chart, s, i) => {
    const c = color(i), bars = s.mark === 'bars', area = s.mark === 'area';
    const set = {
      label: s.name, type: bars ? 'bar' : 'line', error: s.error, names: s.labels, order: bars ? 1 : 0,
      data: s.x ? s.x.map((x, k) => ({x, y: s.y[k]})) : s.y,
      borderColor: c, backgroundColor: bars ? c : c + (area ? '30' : 'ff'),
      borderWidth: bars ? 0 : area ? 1.5 : 2, pointStyle: 'circle',
    };
    if (!bars) {
      set.showLine = s.mark !== 'points';
      set.pointRadius = area || s.mark === 'bare line' ? 0 : s.mark === 'points' ? 5 : 2.5;
      set.pointHitRadius = 8;
      set.stepped = area ? 'middle' : false;
      set.fill = area ? 'origin' : false;
      // A line over stacked bars is not part of the stack.
      set.stack = 'line' + i;
    }
    return set;
  };

  // Where a logarithmic axis begins and ends: a little beyond the data.
  const logRange = (chart, isX) => {
    const values = chart.series.flatMap((s) => isX ? s.x : s.y.flatMap((y, k) => s.error && y > s.error[k] ? [y - s.error[k], y + s.error[k]] : [y]));
    const above = values.filter((v) => v > 0);
    return {min: Math.min(...above) / 1.3, max: Math.max(...above) * 1.3};
  };

  const scale = (chart, isX) => {
    const axis = isX ? chart.x : chart.y;
    const categories = isX && axis.categories;
    const s = {
      type: categories ? 'category' : axis.log ? 'logarithmic' : 'linear',
      title: {display: axis.title !== '', text: axis.title, color: variable('--dim')},
      grid: {color: isX ? 'transparent' : variable('--grid'), borderColor: variable('--line')},
      ticks: {color: variable('--dim'), maxRotation: 60, autoSkipPadding: 12},
      stacked: chart.stacked,
    };
    if (categories) s.offset = true;
    if (axis.log) {
      Object.assign(s, logRange(chart, isX));
      s.ticks.autoSkip = false;
      const decades = Math.log10(s.max / s.min), labelled = decades < 1 ? /^\de/ : decades < 3 ? /^[125]e/ : /^1e/;
      s.ticks.callback = (v) => labelled.test(Number(v).toExponential()) ? tick(v, axis.format) : '';
    } else if (!categories) {
      s.ticks.callback = (v) => tick(v, axis.format);
      if (isX) s.ticks.maxTicksLimit = 10;
    }
    return s;
  };

  const settings = (chart) => ({
    type: chart.series.some((s) => s.mark === 'bars') ? 'bar' : 'line',
    data: {labels: chart.x.categories, datasets: chart.series.map((s, i) => dataset(chart, s, i))},
    options: {
      animation: false, responsive: true, maintainAspectRatio: false,
      interaction: {mode: chart.x.categories || chart.series.every((s) => s.mark === 'area') ? 'index' : 'nearest', intersect: false},
      layout: {padding: {right: 8}},
      scales: {x: scale(chart, true), y: scale(chart, false)},
      plugins: {
        legend: {display: chart.series.length > 1, position: 'bottom', labels: {color: variable('--ink'), boxWidth: 12, boxHeight: 8}},
        tooltip: {
          callbacks: {
            title: (items) => items.length === 0 ? '' : chart.x.categories ? items[0].label : chart.x.title + ' ' + format(items[0].parsed.x, chart.x.format),
            label: (item) => {
              const name = item.dataset.names ? item.dataset.names[item.dataIndex] : item.dataset.label;
              const half = item.dataset.error ? ' ± ' + format(item.dataset.error[item.dataIndex], chart.y.format) : '';
              return ' ' + name + ': ' + format(item.parsed.y, chart.y.format) + half;
            },
          },
        },
      },
    },
    plugins: [annotations],
  });

  // Grid, axes and text are grey; only data has colour.
  const shows = (chart) => {
    const ratio = chart.currentDevicePixelRatio, area = chart.chartArea;
    const width = Math.floor((area.right - area.left) * ratio), height = Math.floor((area.bottom - area.top) * ratio);
    if (!(width > 0 && height > 0)) return false;
    const pixels = chart.ctx.getImageData(Math.floor(area.left * ratio), Math.floor(area.top * ratio), width, height).data;
    let coloured = 0;
    for (let i = 0; i < pixels.length; i += 4) {
      const [r, g, b] = [pixels[i], pixels[i + 1], pixels[i + 2]];
      if (pixels[i + 3] > 0 && Math.max(r, g, b) - Math.min(r, g, b) > 40 && ++coloured >= 8) return true;
    }
    return false;
  };

  const charts = [];  // what is on the page, in order: {canvas, item, chart}
  const draw = (entry) => {
    if (entry.chart) return;
    try {
      entry.chart = new Chart(entry.canvas, settings(entry.item));
      state.charts += 1;
      if (!shows(entry.chart)) state.blank += 1;
    } catch (e) {
      fail(entry.item.title + ': ' + e.message);
    }
    publish();
  };

  const drawChart = (item) => {
    const wide = item.series.some((s) => s.labels) || (item.x.categories || []).length > 40;
    const box = element('div', wide ? 'item wide' : 'item narrow');
    if (item.title) box.append(element('h3', '', item.title));
    if (item.note) box.append(element('p', 'note', item.note));
    const frame = element('div', 'canvas'), canvas = element('canvas');
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', item.title + (item.note ? '. ' + item.note : ''));
    frame.append(canvas);
    box.append(frame);
    charts.push({canvas, item});
    return box;
  };

  const cell = (value, column) => {
    if (Array.isArray(value)) {
      const length = value.reduce((n, s) => n + s.text.length, 0);
      const td = element('td', length > 80 ? 'spans long' : 'spans');
      for (const s of value) td.append(element('span', s.style || '', s.text));
      return td;
    }
    if (typeof value === 'number') return element('td', 'number', format(value, column.format));
    return element('td', column.format === 'text' ? 'text' : 'number', value ?? '');
  };
  const sortKey = (value) => Array.isArray(value) ? value.map((s) => s.text).join('') : value;

  const drawTable = (item) => {
    const box = element('div', 'item table');
    if (item.title) box.append(element('h3', '', item.title));
    if (item.note) box.append(element('p', 'note', item.note));
    const scroll = element('div', 'scroll'), table = element('table'), head = element('tr'), body = element('tbody');
    let rows = item.rows, limit = item.shown > 0 && item.shown < rows.length ? item.shown : rows.length;
    const fill = () => body.replaceChildren(...rows.slice(0, limit).map((row) => {
      const tr = element('tr');
      tr.append(...row.map((value, c) => cell(value, item.columns[c])));
      return tr;
    }));
    item.columns.forEach((column, c) => {
      const th = element('th', column.format === 'text' ? '' : 'number'), button = element('button', '', column.title);
      button.type = 'button';
      button.addEventListener('click', () => {
        const order = th.getAttribute('aria-sort');
        const down = order === null ? column.format !== 'text' : order === 'ascending';
        for (const other of head.children) other.removeAttribute('aria-sort');
        th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        const sign = down ? -1 : 1;
        rows = [...rows].sort((a, b) => {
          const x = sortKey(a[c]), y = sortKey(b[c]);
          if (x === null || y === null) return (x === null) - (y === null);
          return sign * (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y), 'en', {numeric: true}));
        });
        fill();
      });
      th.append(button);
      head.append(th);
    });
    const thead = element('thead');
    thead.append(head);
    table.append(thead, body);
    scroll.append(table);
    box.append(scroll);
    fill();
    if (limit < rows.length) {
      const more = element('button', 'more', 'Show all ' + rows.length);
      more.type = 'button';
      more.addEventListener('click', () => { limit = rows.length; fill(); more.remove(); });
      box.append(more);
    }
    return box;
  };

  const drawSection = (s) => {
    const section = element('section');
    section.append(element('h2', '', s.title));
    for (const p of s.text) section.append(element('p', '', p));
    // Charts that follow each other stand side by side.
    let row = null;
    for (const item of s.items) {
      const box = item.kind === 'chart' ? drawChart(item) : drawTable(item);
      if (!box.classList.contains('narrow')) {
        section.append(box);
        row = null;
        continue;
      }
      if (row === null) {
        row = element('div', 'row');
        section.append(row);
      }
      row.append(box);
      const n = row.children.length;
      row.style.setProperty('--columns', n % 3 === 0 ? 3 : Math.min(n, 2));
    }
    return section;
  };

  const drawVisible = () => {
    for (const entry of charts) if (!entry.canvas.closest('details.group:not([open])')) draw(entry);
  };

  const text = document.getElementById('report-data').textContent;
  const report = JSON.parse(text);
  document.title = report.title;
  document.getElementById('title').textContent = report.title;
  document.getElementById('subtitle').textContent = report.subtitle;
  for (const f of report.facts) {
    const pair = element('div');
    pair.append(element('dt', '', f.name), element('dd', '', f.value));
    document.getElementById('facts').append(pair);
  }
  const main = document.getElementById('sections'), contents = document.getElementById('contents');
  const groups = new Map();
  const link = (target, title) => {
    target.id = 'part-' + contents.children.length;
    const a = element('a', '', title);
    a.href = '#' + target.id;
    if (target.tagName === 'DETAILS') a.addEventListener('click', () => { target.open = true; });
    contents.append(a);
  };
  for (const s of report.sections) {
    const section = drawSection(s);
    if (s.group === '') {
      main.append(section);
      link(section, s.title);
      continue;
    }
    if (!groups.has(s.group)) {
      const group = element('details', 'group');
      group.open = groups.size === 0;
      group.append(element('summary', '', s.group));
      group.addEventListener('toggle', drawVisible);
      groups.set(s.group, group);
      main.append(group);
      link(group, s.group);
    }
    groups.get(s.group).append(section);
  }
  const openAll = () => { for (const g of groups.values()) g.open = true; drawVisible(); };
  if (location.hash === '#all') openAll();
  addEventListener('beforeprint', openAll);
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  drawVisible();
  darkPage.addEventListener('change', () => {
    for (const entry of charts) {
      if (!entry.chart) continue;
      entry.chart.destroy();
      entry.chart = undefined;
    }
    state.charts = state.blank = 0;
    drawVisible();
  });
  document.getElementById('save').addEventListener('click', () => {
    const a = element('a');
    a.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
    a.download = 'report.json';
    a.click();
    URL.revokeObjectURL(a.href);
  });
  state.requests = performance.getEntriesByType('resource').length;
  state.ready = 'yes';
  publish();
})();
