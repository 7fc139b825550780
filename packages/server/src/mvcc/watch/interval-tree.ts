/**
 * Half-open intervals of keys, each with a value, asked which of them hold a given key. Keys are latin-1 strings, one character a byte, so
 * that comparing strings compares bytes.
 *
 * An AVL tree ordered by (start, end) in which every node knows the highest end below it. Changes take O(log n), a question
 * O(log n) for each interval found and O(log n) when there is none.
 */
export class IntervalTree<T> {
  #root: Node<T> | undefined;

  /** The value of exactly this interval. `end` undefined means no end. */
  get(start: string, end: string | undefined): T | undefined {
    let node = this.#root;
    while (node !== undefined) {
      const order = compare(start, end, node);
      if (order === 0) return node.value;
      node = order < 0 ? node.left : node.right;
    }
    return undefined;
  }

  /** Sets the value of the interval, which must not be empty. */
  set(start: string, end: string | undefined, value: T): void {
    this.#root = insert(this.#root, start, end, value);
  }

  /** Forgets the interval; nothing happens when it is not there. */
  delete(start: string, end: string | undefined): void {
    this.#root = remove(this.#root, start, end);
  }

  /** Calls `visit` for each interval that holds `key`, in order of (start, end). The tree must not change meanwhile. */
  stab(key: string, visit: (value: T) => void): void {
    stab(this.#root, key, visit);
  }
}

interface Node<T> {
  start: string;
  end: string | undefined;
  value: T;
  left: Node<T> | undefined;
  right: Node<T> | undefined;
  height: number;
  /** Highest end in this subtree; undefined is above all. */
  maxEnd: string | undefined;
}

function stab<T>(node: Node<T> | undefined, key: string, visit: (value: T) => void): void {
  if (node === undefined || (node.maxEnd !== undefined && node.maxEnd <= key)) return;
  stab(node.left, key, visit);
  if (key < node.start) return;
  if (node.end === undefined || key < node.end) visit(node.value);
  stab(node.right, key, visit);
}

function compare<T>(start: string, end: string | undefined, node: Node<T>): number {
  if (start !== node.start) return start < node.start ? -1 : 1;
  if (end === node.end) return 0;
  if (end === undefined) return 1;
  return node.end === undefined || end < node.end ? -1 : 1;
}

function insert<T>(node: Node<T> | undefined, start: string, end: string | undefined, value: T): Node<T> {
  if (node === undefined) return { start, end, value, left: undefined, right: undefined, height: 1, maxEnd: end };
  const order = compare(start, end, node);
  if (order === 0) node.value = value;
  else if (order < 0) node.left = insert(node.left, start, end, value);
  else node.right = insert(node.right, start, end, value);
  return balance(node);
}

function remove<T>(node: Node<T> | undefined, start: string, end: string | undefined): Node<T> | undefined {
  if (node === undefined) return undefined;
  const order = compare(start, end, node);
  if (order < 0) node.left = remove(node.left, start, end);
  else if (order > 0) node.right = remove(node.right, start, end);
  else if (node.left === undefined) return node.right;
  else if (node.right === undefined) return node.left;
  else {
    let next = node.right;
    while (next.left !== undefined) next = next.left;
    node.right = remove(node.right, next.start, next.end);
    node.start = next.start;
    node.end = next.end;
    node.value = next.value;
  }
  return balance(node);
}

/** Restores the height rule at `node`, whose subtrees keep it and differ by two at most, and what the node knows of them. */
function balance<T>(node: Node<T>): Node<T> {
  refresh(node);
  const { left, right } = node;
  const lean = height(left) - height(right);
  if (left !== undefined && lean > 1) {
    if (height(left.left) < height(left.right)) node.left = rotateLeft(left);
    return rotateRight(node);
  }
  if (right !== undefined && lean < -1) {
    if (height(right.right) < height(right.left)) node.right = rotateRight(right);
    return rotateLeft(node);
  }
  return node;
}

function rotateLeft<T>(node: Node<T>): Node<T> {
  const top = node.right;
  if (top === undefined) return node;
  node.right = top.left;
  top.left = node;
  refresh(node);
  refresh(top);
  return top;
}

function rotateRight<T>(node: Node<T>): Node<T> {
  const top = node.left;
  if (top === undefined) return node;
  node.left = top.right;
  top.right = node;
  refresh(node);
  refresh(top);
  return top;
}

function refresh<T>(node: Node<T>): void {
  const { left, right } = node;
  node.height = 1 + Math.max(height(left), height(right));
  let max = node.end;
  if (left !== undefined) max = laterEnd(max, left.maxEnd);
  if (right !== undefined) max = laterEnd(max, right.maxEnd);
  node.maxEnd = max;
}

function height<T>(node: Node<T> | undefined): number {
  return node === undefined ? 0 : node.height;
}

function laterEnd(a: string | undefined, b: string | undefined): string | undefined {
  if (a === undefined || b === undefined) return undefined;
  return a < b ? b : a;
}
