// SPDX-License-Identifier: Apache-2.0
// The ordinary calls of OpenAI's own Node SDK, unmodified, over a sealed `fetch`.
//
// Usage: node openai_calls.mjs BASE_URL MODEL [NAME...]
// Prints one JSON object: for each call its result, or {error, status, code}.

import OpenAI from "openai";
import { makeSealedFetch } from "./sealed_fetch.mjs";

const [base, model, ...wanted] = process.argv.slice(2);
const client = new OpenAI({
  apiKey: "not-sent",
  baseURL: "https://adyton.invalid/v1",
  maxRetries: 0,
  fetch: await makeSealedFetch(base),
});
const messages = [{ role: "user", content: "hello" }];

const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: {
        type: "object",
        properties: { city: { enum: ["Thebes", "Delphi"] } },
        required: ["city"],
        additionalProperties: false,
      },
    },
  },
];
const oneCall = { tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 300, seed: 1 };
const schema = {
  type: "object",
  properties: { warm: { type: "boolean" }, city: { enum: ["Thebes", "Delphi"] } },
  required: ["warm", "city"],
  additionalProperties: false,
};

async function collected(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const calls = {
  models: async () => (await client.models.list()).data,
  model: () => client.models.retrieve(model),
  chat: () => client.chat.completions.create({ model, messages, max_tokens: 4, seed: 1, n: 2 }),
  stream: async () =>
    collected(
      await client.chat.completions.create({
        model, messages, max_tokens: 4, seed: 1, stream: true, stream_options: { include_usage: true },
      }),
    ),
  streamHelper: () =>
    client.chat.completions.stream({ model, messages, max_tokens: 4, seed: 1 }).finalChatCompletion(),
  logprobs: () =>
    client.chat.completions.create({
      model, messages, max_tokens: 3, temperature: 0, logprobs: true, top_logprobs: 2,
    }),
  jsonSchema: async () =>
    JSON.parse(
      (
        await client.chat.completions.create({
          model, messages, max_tokens: 300, seed: 1,
          response_format: { type: "json_schema", json_schema: { name: "weather", strict: true, schema } },
        })
      ).choices[0].message.content,
    ),
  toolCall: async () => {
    const first = await client.chat.completions.create({ model, messages, ...oneCall });
    const message = first.choices[0].message;
    const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "31 degrees" };
    const second = await client.chat.completions.create({
      model, messages: [...messages, message, result], tools, tool_choice: "none", max_tokens: 6, seed: 1,
    });
    return { first, second };
  },
  toolStream: () => client.chat.completions.stream({ model, messages, ...oneCall }).finalChatCompletion(),
  completion: () => client.completions.create({ model, prompt: "the", max_tokens: 4, temperature: 0 }),
  response: async () => {
    const answer = await client.responses.create({ model, input: "hello", max_output_tokens: 5, seed: 1 });
    return { ...answer, output_text: answer.output_text };
  },
  responseStream: async () =>
    collected(
      await client.responses.create({ model, input: "hello", max_output_tokens: 5, seed: 1, stream: true }),
    ),
  responseSchema: async () =>
    JSON.parse(
      (
        await client.responses.create({
          model, input: "hello", max_output_tokens: 300, seed: 1,
          text: { format: { type: "json_schema", name: "weather", strict: true, schema } },
        })
      ).output_text,
    ),
  responseTool: async () => {
    const [{ function: weather }] = tools;
    const asked = { model, tools: [{ type: "function", strict: true, ...weather }], seed: 1 };
    const input = [{ role: "user", content: "hello" }];
    const first = await client.responses.create({
      ...asked, input, tool_choice: "required", parallel_tool_calls: false, max_output_tokens: 300,
    });
    const [call] = first.output.filter(({ type }) => type === "function_call");
    const result = { type: "function_call_output", call_id: call.call_id, output: "31 degrees" };
    const second = await client.responses.create({
      ...asked, input: [...input, ...first.output, result], tool_choice: "none", max_output_tokens: 5,
    });
    return { call, text: second.output_text };
  },
  embeddings: async () =>
    (await client.embeddings.create({ model, input: ["the", "an"] })).data.map(({ embedding }) => embedding),
  badRequest: () => client.chat.completions.create({ model, messages, temperature: -1 }),
  unknownModel: () => client.chat.completions.create({ model: "no-such-model", messages }),
  abort: async () => {
    const stream = await client.chat.completions.create({
      model, messages, max_tokens: 400, temperature: 0, stream: true,
    });
    let events = 0;
    for await (const _ of stream) if (events++ === 2) stream.controller.abort();
    return { events, after: (await client.models.list()).data.length };
  },
};

const results = {};
for (const name of wanted.length > 0 ? wanted : Object.keys(calls)) {
  try {
    results[name] = await calls[name]();
  } catch (error) {
    results[name] = { error: error.constructor.name, status: error.status, code: error.code, message: error.message };
  }
}
console.log(JSON.stringify(results));
