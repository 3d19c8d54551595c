// Places the cards of the flow by rank and leads the edges between them, past the cards in between.

const GAP = 22;
const SLOT = 7;
const NARROW = 860;
const CARD_MIN = 132;
const CARD_MAX = 208;
const MARGIN = 4;
const MOST_GAP = 240;

export function layOut(boxes, edges, room) {
  const ranks = [...new Set([...boxes.values()].map((box) => box.node.rank ?? 0))].sort((a, b) => a - b);
  const columns = ranks.map((rank) => [...boxes.values()].filter((box) => (box.node.rank ?? 0) === rank));
  const pitch = room / columns.length;
  const across = room >= NARROW && pitch >= CARD_MIN + 34;
  const height = across ? placeAcross(columns, room) : placeDown(columns, room);
  const placed = edges
    .map((edge) => ({ edge, from: boxes.get(edge.from), to: boxes.get(edge.to) }))
    .filter(({ from, to }) => from && to);
  spreadPorts(placed, across);
  const slots = new Map();
  const drawn = placed.map((item) => drawEdge(item, columns, across, slots));
  const lowest = Math.max(height, ...drawn.map((item) => item.extent));
  return { width: room, height: lowest + 6, edges: drawn };
}

function placeAcross(columns, room) {
  const pitch = room / columns.length;
  const gap = Math.max(46, Math.min(120, pitch * 0.36));
  const width = Math.min(CARD_MAX, Math.floor((room - MARGIN * 2 - gap * (columns.length - 1)) / columns.length));
  const step = columns.length > 1 ? Math.min(width + MOST_GAP, (room - MARGIN * 2 - width) / (columns.length - 1)) : 0;
  const left = (room - step * (columns.length - 1) - width) / 2;
  const tall = columns.map((column) => {
    for (const box of column) box.card.style.width = `${width}px`;
    return column;
  }).map((column) => {
    for (const box of column) box.height = box.card.offsetHeight;
    return column.reduce((sum, box) => sum + box.height + GAP, -GAP);
  });
  const height = Math.max(...tall) + GAP;
  columns.forEach((column, order) => {
    let y = (height - tall[order]) / 2;
    for (const box of column) {
      put(box, order, left + step * order, y, width);
      y += box.height + GAP;
    }
  });
  return height;
}

function placeDown(columns, room) {
  const gap = 12;
  const abreast = Math.max(1, Math.floor((room + gap) / (CARD_MIN + 10 + gap)));
  let y = 4;
  columns.forEach((column, order) => {
    const inRow = Math.min(abreast, column.length);
    const width = Math.min(CARD_MAX + 60, Math.floor((room - gap * (inRow - 1)) / inRow));
    for (const box of column) {
      box.card.style.width = `${width}px`;
      box.height = box.card.offsetHeight;
    }
    for (let start = 0; start < column.length; start += inRow) {
      const row = column.slice(start, start + inRow);
      let x = (room - row.length * width - gap * (row.length - 1)) / 2;
      for (const box of row) {
        put(box, order, x, y, width);
        x += width + gap;
      }
      y += Math.max(...row.map((box) => box.height)) + (start + inRow < column.length ? 16 : 52);
    }
  });
  return y - 52 + 4;
}

function put(box, order, x, y, width) {
  box.order = order;
  box.rect = { x: Math.round(x), y: Math.round(y), width, height: box.height };
  box.card.style.transform = `translate(${box.rect.x}px, ${box.rect.y}px)`;
}

/** Edges leave and enter a card side by side, in the order of where they lead. */
function spreadPorts(placed, across) {
  const middle = ({ rect }) => (across ? rect.y + rect.height / 2 : rect.x + rect.width / 2);
  for (const [end, other, name] of [['from', 'to', 'start'], ['to', 'from', 'end']]) {
    const groups = group(placed, (item) => item[end]);
    for (const [box, items] of groups) {
      items.sort((a, b) => middle(a[other]) - middle(b[other]));
      const length = across ? box.rect.height : box.rect.width;
      const spacing = Math.min(16, (length - 24) / items.length);
      items.forEach((item, place) => { item[name] = middle(box) + (place - (items.length - 1) / 2) * spacing; });
    }
  }
}

function group(items, key) {
  const groups = new Map();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

function drawEdge({ edge, from, to, start, end }, columns, across, slots) {
  const main = (rect, far) => (across ? rect.x + (far ? rect.width : 0) : rect.y + (far ? rect.height : 0));
  // What leads back, as from a store to a topic, leaves and enters on the other sides.
  const back = to.order < from.order;
  const step = back ? -1 : 1;
  const points = [[main(from.rect, !back), start]];
  for (let order = from.order + step; order !== to.order && to.order !== from.order; order += step) {
    const past = passBy(columns[order], order, points.at(-1)[1], end, across, slots);
    points.push(...(back ? past.reverse() : past));
  }
  points.push([to.order > from.order ? main(to.rect, false) - 6 : main(to.rect, true) + 6, end]);
  const path = curve(points, across);
  const xy = ([along, side]) => (across ? { x: along, y: side } : { x: side, y: along });
  const tip = xy([points.at(-1)[0] + 6 * step, points.at(-1)[1]]);
  return {
    edge,
    path,
    tip,
    direction: across ? (back ? 'left' : 'right') : (back ? 'up' : 'down'),
    target: to.node,
    bundle: `${from.order}>${to.order}`,
    labelPlaces: labelPlaces(points, xy),
    extent: Math.max(...points.map((point) => xy(point).y)),
  };
}

/** Where an edge passes a column: the free slot that is nearest to its straight way. */
function passBy(column, order, near, end, across, slots) {
  const wanted = (near + end) / 2;
  const spans = column
    .map(({ rect }) => (across ? [rect.y - SLOT, rect.y + rect.height + SLOT] : [rect.x - 4, rect.x + rect.width + 4]))
    .sort((a, b) => a[0] - b[0]);
  const candidates = [wanted, ...spans.flat()].filter((at) => !spans.some(([low, high]) => at > low && at < high) && at > 1);
  candidates.sort((a, b) => Math.abs(a - wanted) - Math.abs(b - wanted));
  const chosen = candidates[0] ?? wanted;
  const key = `${order}:${Math.round(chosen / 10)}`;
  const used = slots.get(key) ?? 0;
  slots.set(key, used + 1);
  const side = chosen + used * 5;
  const low = Math.min(...column.map(({ rect }) => (across ? rect.x : rect.y))) - 4;
  const high = Math.max(...column.map(({ rect }) => (across ? rect.x + rect.width : rect.y + rect.height))) + 4;
  return [[low, side], [high, side]];
}

function curve(points, across) {
  const text = (along, side) => (across ? `${along.toFixed(1)} ${side.toFixed(1)}` : `${side.toFixed(1)} ${along.toFixed(1)}`);
  let path = `M${text(...points[0])}`;
  for (let place = 1; place < points.length; place += 1) {
    const [a, b] = points[place - 1];
    const [c, d] = points[place];
    const bend = (c - a) / 2;
    path += b === d ? `L${text(c, d)}` : `C${text(a + bend, b)} ${text(c - bend, d)} ${text(c, d)}`;
  }
  return path;
}

function labelPlaces(points, xy) {
  const places = [];
  for (const share of [0.5, 0.36, 0.64, 0.22, 0.78]) {
    for (let place = 1; place < points.length; place += 1) {
      const [a, b] = points[place - 1];
      const [c, d] = points[place];
      const ease = 3 * share ** 2 - 2 * share ** 3;
      places.push(xy([a + (c - a) * share, b + (d - b) * ease]));
    }
  }
  return places;
}
