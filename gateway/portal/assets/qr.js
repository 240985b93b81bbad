// A QR code (ISO/IEC 18004) of a text: bytes, error correction level L. `qrCode(text)` answers rows of true for
// dark, or null where the text is too long. It is drawn in the page because the text holds a private key.
"use strict";
const qrCode = (() => {
  // By version: error correction bytes of each block, and blocks, at level L (table 9).
  const EC = [7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30];
  const BLOCKS = [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25];
  const LEVEL_L = 1;
  const MASKS = [
    (x, y) => (x + y) % 2,
    (x, y) => y % 2,
    (x) => x % 3,
    (x, y) => (x + y) % 3,
    (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2,
    (x, y) => ((x * y) % 2) + ((x * y) % 3),
    (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2,
    (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2,
  ];

  // Bytes of data and error correction together, after all fixed patterns (table 1).
  const capacity = (version) => {
    let bits = (16 * version + 128) * version + 64;
    if (version >= 2) {
      const aligned = Math.floor(version / 7) + 2;
      bits -= (25 * aligned - 10) * aligned - 55;
      if (version >= 7) bits -= 36;
    }
    return Math.floor(bits / 8);
  };
  const dataBytes = (version) => capacity(version) - EC[version - 1] * BLOCKS[version - 1];

  // Multiplication in GF(256) modulo x^8 + x^4 + x^3 + x^2 + 1.
  const times = (a, b) => {
    let product = 0;
    for (let bit = 7; bit >= 0; bit--) {
      product = (product << 1) ^ ((product >>> 7) * 0x11d);
      product ^= ((b >>> bit) & 1) * a;
    }
    return product;
  };
  const divisor = (degree) => {
    const result = new Array(degree).fill(0);
    result[degree - 1] = 1;
    let root = 1;
    for (let i = 0; i < degree; i++) {
      for (let j = 0; j < degree; j++) {
        result[j] = times(result[j], root);
        if (j + 1 < degree) result[j] ^= result[j + 1];
      }
      root = times(root, 2);
    }
    return result;
  };
  const remainder = (data, by) => {
    const result = by.map(() => 0);
    for (const byte of data) {
      const factor = byte ^ result.shift();
      result.push(0);
      by.forEach((coefficient, i) => { result[i] ^= times(coefficient, factor); });
    }
    return result;
  };

  const codewords = (bytes, version) => {
    const bits = [];
    const put = (value, length) => {
      for (let i = length - 1; i >= 0; i--) bits.push((value >>> i) & 1);
    };
    put(4, 4); // bytes
    put(bytes.length, version < 10 ? 8 : 16);
    for (const byte of bytes) put(byte, 8);
    const room = dataBytes(version) * 8;
    put(0, Math.min(4, room - bits.length));
    put(0, (8 - (bits.length % 8)) % 8);
    for (let pad = 0xec; bits.length < room; pad ^= 0xec ^ 0x11) put(pad, 8);
    const data = [];
    for (let i = 0; i < bits.length; i += 8) data.push(parseInt(bits.slice(i, i + 8).join(""), 2));
    return data;
  };

  // Splits into blocks, adds error correction to each, and deals them out byte by byte.
  const interleaved = (data, version) => {
    const [total, blocks, ec] = [capacity(version), BLOCKS[version - 1], EC[version - 1]];
    const short = blocks - (total % blocks);
    const shortLength = Math.floor(total / blocks) - ec;
    const by = divisor(ec);
    const parts = [];
    let at = 0;
    for (let i = 0; i < blocks; i++) {
      const part = data.slice(at, at + shortLength + (i < short ? 0 : 1));
      at += part.length;
      parts.push({ part, check: remainder(part, by) });
    }
    const result = [];
    for (let i = 0; i <= shortLength; i++) {
      for (const { part } of parts) if (i < part.length) result.push(part[i]);
    }
    for (let i = 0; i < ec; i++) for (const { check } of parts) result.push(check[i]);
    return result;
  };

  const alignment = (version, size) => {
    if (version === 1) return [];
    const count = Math.floor(version / 7) + 2;
    const step = Math.floor((version * 8 + count * 3 + 5) / (count * 4 - 4)) * 2;
    const places = [6];
    for (let place = size - 7; places.length < count; place -= step) places.splice(1, 0, place);
    return places;
  };

  const draw = (version, mask, words) => {
    const size = version * 4 + 17;
    const dark = Array.from({ length: size }, () => new Array(size).fill(false));
    const fixed = Array.from({ length: size }, () => new Array(size).fill(false));
    const set = (x, y, value) => {
      if (x < 0 || y < 0 || x >= size || y >= size) return;
      dark[y][x] = value;
      fixed[y][x] = true;
    };
    const ring = (cx, cy, reach, isDark) => {
      for (let y = -reach; y <= reach; y++) {
        for (let x = -reach; x <= reach; x++) set(cx + x, cy + y, isDark(Math.max(Math.abs(x), Math.abs(y))));
      }
    };
    for (let i = 0; i < size; i++) {
      set(6, i, i % 2 === 0);
      set(i, 6, i % 2 === 0);
    }
    for (const [x, y] of [[3, 3], [size - 4, 3], [3, size - 4]]) ring(x, y, 4, (d) => d !== 2 && d !== 4);
    const places = alignment(version, size);
    const last = places.length - 1;
    places.forEach((x, i) => places.forEach((y, j) => {
      const atFinder = (i === 0 && j === 0) || (i === 0 && j === last) || (i === last && j === 0);
      if (!atFinder) ring(x, y, 2, (d) => d !== 1);
    }));
    // Level and mask, twice, under a BCH code (7.9).
    const kind = (LEVEL_L << 3) | mask;
    let rest = kind;
    for (let i = 0; i < 10; i++) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
    const format = ((kind << 10) | rest) ^ 0x5412;
    const bit = (value, i) => ((value >>> i) & 1) === 1;
    for (let i = 0; i <= 5; i++) set(8, i, bit(format, i));
    set(8, 7, bit(format, 6));
    set(8, 8, bit(format, 7));
    set(7, 8, bit(format, 8));
    for (let i = 9; i < 15; i++) set(14 - i, 8, bit(format, i));
    for (let i = 0; i < 8; i++) set(size - 1 - i, 8, bit(format, i));
    for (let i = 8; i < 15; i++) set(8, size - 15 + i, bit(format, i));
    set(8, size - 8, true);
    if (version >= 7) {
      let left = version;
      for (let i = 0; i < 12; i++) left = (left << 1) ^ ((left >>> 11) * 0x1f25);
      const bits = (version << 12) | left;
      for (let i = 0; i < 18; i++) {
        const [a, b] = [size - 11 + (i % 3), Math.floor(i / 3)];
        set(a, b, bit(bits, i));
        set(b, a, bit(bits, i));
      }
    }
    // Two columns at a time, from the right, up and down in turn (7.7.3).
    let next = 0;
    for (let right = size - 1; right >= 1; right -= 2) {
      if (right === 6) right = 5;
      const upwards = ((right + 1) & 2) === 0;
      for (let step = 0; step < size; step++) {
        const y = upwards ? size - 1 - step : step;
        for (const x of [right, right - 1]) {
          if (fixed[y][x]) continue;
          const value = next < words.length * 8 && bit(words[next >>> 3], 7 - (next & 7));
          dark[y][x] = value !== (MASKS[mask](x, y) === 0);
          next += 1;
        }
      }
    }
    return dark;
  };

  // What makes a code hard to read (7.8.3): long runs, squares, what looks like a finder, and imbalance.
  const penalty = (rows) => {
    const size = rows.length;
    const finder = /(?=0000101110100000|00001011101|10111010000)/g;
    let sum = 0;
    let darks = 0;
    const line = (cells) => {
      const text = cells.map((cell) => (cell ? "1" : "0")).join("");
      for (const run of text.match(/0{5,}|1{5,}/g) || []) sum += run.length - 2;
      sum += 40 * (text.match(finder) || []).length;
    };
    for (let i = 0; i < size; i++) {
      line(rows[i]);
      line(rows.map((row) => row[i]));
    }
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        if (rows[y][x]) darks += 1;
        if (x + 1 < size && y + 1 < size && rows[y][x] === rows[y][x + 1] &&
          rows[y][x] === rows[y + 1][x] && rows[y][x] === rows[y + 1][x + 1]) sum += 3;
      }
    }
    return sum + 10 * Math.floor(Math.abs((darks * 20) / (size * size) - 10));
  };

  return (text) => {
    const bytes = new TextEncoder().encode(text);
    let version = 1;
    while (version <= 40 && bytes.length > dataBytes(version) - (version < 10 ? 2 : 3)) version += 1;
    if (version > 40) return null;
    const words = interleaved(codewords(bytes, version), version);
    let [best, least] = [null, Infinity];
    for (let mask = 0; mask < MASKS.length; mask++) {
      const rows = draw(version, mask, words);
      const cost = penalty(rows);
      if (cost < least) [best, least] = [rows, cost];
    }
    return best;
  };
})();
