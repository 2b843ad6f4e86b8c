// OpenAI's Node client with its defaults, retries included, against the gateway at OPENAI_BASE_URL.
// Each test prints its name once it has passed; the first that fails ends the process.

import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI();
const messages = [{ role: "user", content: "hello there" }];
const desk = { model: "desk", messages };
const says = (content) => ({ model: "desk", messages: [{ role: "user", content }] });
const tools = [{ type: "function", function: { name: "look_up", parameters: { type: "object" } } }];

async function text(stream) {
  let said = "";
  for await (const chunk of stream) said += chunk.choices[0]?.delta?.content ?? "";
  return said;
}

const tests = {
  async plain() {
    const answer = await client.chat.completions.create(desk);
    assert.equal(answer.choices[0].message.content, "desk-1: hello there");
    assert.ok(answer.usage.total_tokens > 0);
    assert.match(answer._request_id, /^req_[0-9a-f]{32}$/);
  },

  async stream() {
    const asked = { ...desk, stream: true, stream_options: { include_usage: true } };
    let last;
    let said = "";
    for await (const chunk of await client.chat.completions.create(asked)) {
      said += chunk.choices[0]?.delta?.content ?? "";
      last = chunk;
    }
    assert.equal(said, "desk-1: hello there");
    assert.equal(last.usage.completion_tokens, 3);
    const whole = await client.chat.completions.stream(desk).finalChatCompletion();
    assert.equal(whole.choices[0].message.content, "desk-1: hello there");
  },

  async choices() {
    const answer = await client.chat.completions.create({ ...desk, n: 2, logprobs: true, seed: 1, stop: ["x"] });
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
    assert.equal(answer.choices[0].logprobs.content[0].logprob, -0.5);
  },

  async tools() {
    const first = await client.chat.completions.create({ ...desk, tools });
    const { message } = first.choices[0];
    const [call] = message.tool_calls;
    assert.equal(call.function.name, "look_up");
    const told = { role: "tool", tool_call_id: call.id, content: "sent" };
    const second = await client.chat.completions.create({ ...desk, messages: [...messages, message, told], tools });
    assert.equal(second.choices[0].message.content, "desk-1: sent");
    const streamed = await client.chat.completions.stream({ ...desk, tools }).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.tool_calls[0].function, call.function);
  },

  async response_format() {
    const schema = { type: "object", properties: { said: { type: "string" } } };
    const json_schema = { name: "said", schema, strict: true };
    const asked = { ...desk, response_format: { type: "json_schema", json_schema } };
    const answer = await client.chat.completions.parse(asked);
    assert.deepEqual(answer.choices[0].message.parsed, { said: "hello there" });
  },

  async errors() {
    const refused = async (asked) => {
      try {
        await client.chat.completions.create({ ...desk, ...asked });
      } catch (error) {
        return error;
      }
      assert.fail(`${JSON.stringify(asked)} was answered`);
    };
    const unknown = await refused({ model: "nobody" });
    assert.ok(unknown instanceof OpenAI.NotFoundError);
    assert.equal(unknown.code, "model_not_found");
    assert.ok(unknown.requestID);
    const wrong = await refused({ temperature: 9 });
    assert.ok(wrong instanceof OpenAI.BadRequestError);
    assert.deepEqual([wrong.param, wrong.code], ["temperature", "invalid_value"]);
    const long = await refused(says("too long"));
    assert.deepEqual([long.status, long.code], [400, "context_length_exceeded"]);
  },

  async retries() {
    for (const stream of [false, true]) {
      const answer = await client.chat.completions.create({ ...says(`try twice ${stream}`), stream });
      const said = stream ? await text(answer) : answer.choices[0].message.content;
      assert.equal(said, `desk-1: try twice ${stream}`);
    }
  },

  // The engine holds every stream back from here on, until it is told to let them go.
  async abort() {
    const stream = await client.chat.completions.create({ ...says("leave me"), stream: true });
    stream.controller.abort();
    assert.equal(await text(stream), "");
  },

  async heartbeats() {
    const stream = await client.chat.completions.create({ ...desk, stream: true });
    await client.chat.completions.create(says("let the others go on"));
    assert.equal(await text(stream), "desk-1: hello there");
  },
};

for (const [name, test] of Object.entries(tests)) {
  if (name === "abort") await client.chat.completions.create(says("hold the others back"));
  await test();
  console.log(name);
}
