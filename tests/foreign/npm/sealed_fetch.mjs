// SPDX-License-Identifier: Apache-2.0
// A `fetch` that sends every request sealed: foreign HPKE (`hpke`) and Binary HTTP (`bhttp-js`) libraries, and the
// chunk framing written here from draft-ietf-ohai-chunked-ohttp. It shares no code with the project, and so is
// evidence that the gateway speaks the standard and not merely its own dialect. It does not attest: it takes the
// key that it is offered, which only a test may do.

import * as HPKE from "hpke";
import { BHttpDecoder, BHttpEncoder } from "bhttp-js";

const X25519 = 0x0020;
const HKDF_SHA256 = 0x0001;
const AES_128_GCM = 0x0001;
const INDETERMINATE_RESPONSE = 3;
const text = new TextEncoder();
const names = new TextDecoder();

function concat(...parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

// QUIC variable-length integer, RFC 9000 section 16.
function varint(value) {
  if (value < 64) return Uint8Array.of(value);
  if (value < 16384) return Uint8Array.of(0x40 | (value >> 8), value & 0xff);
  return Uint8Array.of(0x80 | (value >> 24), (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff);
}

// Reads a sequence of byte arrays in the pieces that its grammar asks for.
class Reader {
  #source;
  #pending = new Uint8Array(0);

  constructor(source) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async take(length) {
    while (this.#pending.length < length) {
      const { value, done } = await this.#source.next();
      if (done) throw new Error("truncated");
      this.#pending = concat(this.#pending, value);
    }
    const taken = this.#pending.slice(0, length);
    this.#pending = this.#pending.slice(length);
    return taken;
  }

  async varint() {
    const first = (await this.take(1))[0];
    let value = first & 0x3f;
    for (const byte of await this.take((1 << (first >> 6)) - 1)) value = value * 256 + byte;
    return value;
  }

  async rest() {
    const parts = [this.#pending];
    for (;;) {
      const { value, done } = await this.#source.next();
      if (done) return concat(...parts);
      parts.push(value);
    }
  }
}

// RFC 9458 section 3: every configuration stands behind its two-byte length.
function x25519Configuration(list) {
  const view = new DataView(list.buffer, list.byteOffset, list.byteLength);
  for (let at = 0; at < list.length; ) {
    const length = view.getUint16(at);
    const keyId = view.getUint8(at + 2);
    const kem = view.getUint16(at + 3);
    if (kem === X25519) return { keyId, publicKey: list.slice(at + 5, at + 5 + 32) };
    at += 2 + length;
  }
  throw new Error("the appliance offers no X25519 key");
}

async function hmac(key, message) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, message));
}

// RFC 5869, one block.
async function hkdfExpand(prk, info, length) {
  return (await hmac(prk, concat(info, Uint8Array.of(1)))).slice(0, length);
}

async function seal({ keyId, publicKey }, inner) {
  const header = Uint8Array.of(keyId, X25519 >> 8, X25519 & 0xff, 0, HKDF_SHA256, 0, AES_128_GCM);
  const info = concat(text.encode("message/bhttp chunked request"), Uint8Array.of(0), header);
  const suite = new HPKE.CipherSuite(
    HPKE.KEM_DHKEM_X25519_HKDF_SHA256,
    HPKE.KDF_HKDF_SHA256,
    HPKE.AEAD_AES_128_GCM,
  );
  const key = await suite.DeserializePublicKey(publicKey);
  const { encapsulatedSecret: enc, ctx } = await suite.SetupSender(key, { info });
  // Two data chunks on purpose, so that reassembly is exercised, then the empty final chunk.
  const middle = inner.length >> 1;
  const first = await ctx.Seal(inner.slice(0, middle));
  const second = await ctx.Seal(inner.slice(middle));
  const final = await ctx.Seal(new Uint8Array(0), text.encode("final"));
  const message = concat(
    header, enc, varint(first.length), first, varint(second.length), second, varint(0), final,
  );
  return { enc, ctx, message };
}

async function responseOpener(enc, ctx, nonce) {
  const secret = await ctx.Export(text.encode("message/bhttp chunked response"), 16);
  const prk = await hmac(concat(enc, nonce), secret);
  const key = await crypto.subtle.importKey(
    "raw", await hkdfExpand(prk, text.encode("key"), 16), "AES-GCM", false, ["decrypt"],
  );
  const aeadNonce = await hkdfExpand(prk, text.encode("nonce"), 12);
  let counter = 0;
  return async (ciphertext, additionalData) => {
    const iv = aeadNonce.slice();
    const view = new DataView(iv.buffer);
    view.setBigUint64(4, view.getBigUint64(4) ^ BigInt(counter++));
    return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, key, ciphertext));
  };
}

async function* opened(body, enc, ctx, onChunk) {
  const sealed = new Reader(body);
  const open = await responseOpener(enc, ctx, await sealed.take(16));
  for (;;) {
    const length = await sealed.varint();
    if (length === 0) break;
    onChunk();
    yield await open(await sealed.take(length), new Uint8Array(0));
  }
  // Whatever comes after the final chunk's length is the final chunk; only now is the answer known to be complete.
  yield await open(await sealed.rest(), text.encode("final"));
}

// RFC 9292 section 3.5, as it arrives. A known-length message has arrived when it starts, so bhttp-js reads that.
async function toResponse(plaintext) {
  const message = new Reader(plaintext);
  const framing = await message.varint();
  if (framing !== INDETERMINATE_RESPONSE) {
    return new BHttpDecoder().decodeResponse(concat(varint(framing), await message.rest()));
  }
  const status = await message.varint();
  const headers = new Headers();
  for (let length = await message.varint(); length > 0; length = await message.varint()) {
    const name = names.decode(await message.take(length));
    headers.append(name, names.decode(await message.take(await message.varint())));
  }
  const body = new ReadableStream({
    async pull(controller) {
      const length = await message.varint();
      if (length > 0) {
        controller.enqueue(await message.take(length));
        return;
      }
      await message.rest();
      controller.close();
    },
  });
  return new Response(body, { status, headers });
}

/** Make a `fetch` whose requests reach the appliance at `base`, sealed; `onChunk` is told of each data chunk. */
export async function makeSealedFetch(base, onChunk = () => {}) {
  const gateway = `${base}/.well-known/ohttp-gateway`;
  const configuration = x25519Configuration(new Uint8Array(await (await fetch(gateway)).arrayBuffer()));
  return async (target, init = {}) => {
    const inner = await new BHttpEncoder().encodeRequest(new Request(target, { ...init, signal: undefined }));
    const { enc, ctx, message } = await seal(configuration, inner);
    const answer = await fetch(gateway, {
      method: "POST",
      headers: { "Content-Type": "message/ohttp-chunked-req", Incremental: "?1" },
      body: message,
      signal: init.signal,
    });
    if (answer.status !== 200 || answer.headers.get("content-type") !== "message/ohttp-chunked-res") {
      throw new Error(`unexpected outer answer ${answer.status}: ${await answer.text()}`);
    }
    return toResponse(opened(answer.body, enc, ctx, onChunk));
  };
}
