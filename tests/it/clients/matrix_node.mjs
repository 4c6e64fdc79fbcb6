// Asks through nearhit with a client library from npm, as matrix.rs says.
//
//     node matrix_node.mjs NODE_MODULES CLIENT URL
//
// Reads a JSON object a line from stdin:
//     {"question", "stream", "tools", "json", "leave", "retries"}
// and writes what the library made of the answer, a line each:
//     {"text"} or {"tool", "arguments"} or {"left": true} or {"status", "message"}
// With "leave" the caller goes away after the first piece of the stream.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, name, url] = process.argv.slice(2);
const require = createRequire(`${modules}/`);

const KEY = "sk-test";
const LEFT = { left: true };
const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const CAPITAL = { ...CITY, properties: { capital: { type: "string" } }, required: ["capital"] };
const TOOL = { name: "weather", description: "The weather over a city." };

function openai() {
  const { OpenAI } = require("openai");
  const { completions } = new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY }).chat;
  return async ({ question, stream, tools, json, leave, retries }) => {
    const body = {
      model: "gpt-x",
      messages: [{ role: "user", content: question }],
      ...(tools && { tools: [{ type: "function", function: { ...TOOL, parameters: CITY } }] }),
      ...(json && { response_format: { type: "json_object" } }),
    };
    const options = { maxRetries: retries };
    let message;
    if (stream) {
      const running = completions.stream(body, options);
      if (leave) return await left(running, (chunk) => chunk.choices[0]?.delta.content);
      message = await running.finalMessage();
    } else {
      message = (await completions.create(body, options)).choices[0].message;
    }
    const call = message.tool_calls?.[0]?.function;
    return call ? { tool: call.name, arguments: JSON.parse(call.arguments) } : { text: message.content };
  };
}

function anthropic() {
  const { Anthropic } = require("@anthropic-ai/sdk");
  const { messages } = new Anthropic({ baseURL: url, apiKey: KEY });
  return async ({ question, stream, tools, json, leave, retries }) => {
    const body = {
      model: "claude-x",
      max_tokens: 500,
      messages: [{ role: "user", content: question }],
      ...(tools && { tools: [{ ...TOOL, input_schema: CITY }] }),
      ...(json && { output_config: { format: { type: "json_schema", schema: CAPITAL } } }),
    };
    const options = { maxRetries: retries };
    let message;
    if (stream) {
      const running = messages.stream(body, options);
      if (leave) return await left(running, (event) => event.delta?.text);
      message = await running.finalMessage();
    } else {
      message = await messages.create(body, options);
    }
    const call = message.content.find((block) => block.type === "tool_use");
    return call ? { tool: call.name, arguments: call.input } : { text: message.content[0].text };
  };
}

// Vercel's SDK, over whichever of OpenAI's APIs `choose` takes.
function ai(choose, providerOptions) {
  const { generateText, streamText, jsonSchema, tool, Output } = require("ai");
  const model = choose(require("@ai-sdk/openai").createOpenAI({ baseURL: `${url}/v1`, apiKey: KEY }));
  const weather = tool({ description: TOOL.description, inputSchema: jsonSchema(CITY) });
  return async ({ question, stream, tools, json, leave, retries }) => {
    const leaving = new AbortController();
    const call = {
      model,
      prompt: question,
      maxRetries: retries,
      abortSignal: leaving.signal,
      providerOptions,
      ...(tools && { tools: { weather } }),
      ...(json && { output: Output.json() }),
    };
    if (!stream) return said(await generateText(call));
    // By itself it writes errors to the console.
    const running = streamText({ ...call, onError() {} });
    for await (const part of running.fullStream) {
      if (part.type === "error") throw part.error;
      if (leave && part.type === "text-delta") {
        leaving.abort();
        return LEFT;
      }
    }
    return said({ text: await running.text, toolCalls: await running.toolCalls });
  };
}

function said({ text, toolCalls: [call] }) {
  return call ? { tool: call.toolName, arguments: call.input } : { text };
}

// Leaves a stream at the first event that has a text.
async function left(stream, text) {
  for await (const event of stream) {
    if (text(event)) {
      stream.abort();
      return LEFT;
    }
  }
  throw new Error("the stream had no text");
}

const CLIENTS = {
  openai,
  anthropic,
  "ai chat": () => ai((provider) => provider.chat("gpt-x")),
  "ai responses": () => ai((provider) => provider("gpt-x"), { openai: { store: false } }),
  "ai default": () => ai((provider) => provider("gpt-x")),
};

const ask = CLIENTS[name]();
for await (const line of createInterface({ input: process.stdin })) {
  let reply;
  try {
    reply = await ask(JSON.parse(line));
  } catch (error) {
    reply = { status: error.status ?? error.statusCode ?? null, message: String(error.message) };
  }
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}
