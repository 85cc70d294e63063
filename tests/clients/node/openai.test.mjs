// OpenAI's own JavaScript client against the server that BRIM_URL names.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.env.BRIM_URL}/v1`, apiKey: "none", maxRetries: 0 });
const model = "demo";
const greedy = { model, temperature: 0, max_tokens: 200 };
const ask = (content) => [{ role: "user", content }];
const capital = ask("What is the capital of France?");
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const Trip = z.object({ city: z.string().max(12), nights: z.number().int(), means: z.enum(["train", "bus"]) });

test("a model is listed and described", async () => {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert.ok(names.includes(model));
  assert.equal((await client.models.retrieve(model)).owned_by, "brim");
});

test("a streamed answer is the same as one not streamed", async () => {
  const messages = ask("Tell me a story."); // long enough that it cannot come in one piece
  const whole = await client.chat.completions.create({ ...greedy, messages });
  const stream = client.chat.completions.stream({
    ...greedy,
    messages,
    stream_options: { include_usage: true },
  });
  let text = "";
  let deltas = 0;
  stream.on("content", (delta) => {
    text += delta;
    deltas += 1;
  });
  const streamed = await stream.finalChatCompletion();
  assert.ok(deltas > 1);
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(streamed.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(streamed.choices[0].finish_reason, whole.choices[0].finish_reason);
  assert.equal(streamed.usage.completion_tokens, whole.usage.completion_tokens);
});

test("a stream that is left early does no harm", async () => {
  const stream = await client.chat.completions.create({ ...greedy, messages: capital, stream: true });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  const after = await client.chat.completions.create({ ...greedy, messages: capital });
  assert.match(after.choices[0].message.content, /Paris/);
});

for (const stream of [false, true]) {
  test(`tools run until the answer is there${stream ? ", streamed" : ""}`, async () => {
    const asked = [];
    const runner = client.chat.completions.runTools({
      ...greedy,
      stream,
      messages: ask("What is the weather in Paris?"),
      tools: [
        {
          type: "function",
          function: {
            name: "get_weather",
            description: "Get the weather of a city",
            parameters,
            parse: JSON.parse,
            function: ({ city }) => {
              asked.push(city);
              return { temperature: 21, condition: "sunny" };
            },
          },
        },
      ],
    });
    assert.match(await runner.finalContent(), /21/);
    assert.deepEqual(asked, ["Paris"]);
  });
}

test("an answer is parsed by a Zod schema", async () => {
  const answer = await client.chat.completions.parse({
    ...greedy,
    messages: ask("Plan a trip to Paris."),
    response_format: zodResponseFormat(Trip, "trip"),
  });
  assert.deepEqual(answer.choices[0].message.parsed, Trip.parse(JSON.parse(answer.choices[0].message.content)));
});

test("log-probabilities come token by token", async () => {
  const [choice] = (
    await client.chat.completions.create({ ...greedy, messages: capital, logprobs: true, top_logprobs: 2 })
  ).choices;
  assert.ok(choice.logprobs.content.map((one) => one.token).join("").startsWith(choice.message.content));
  assert.ok(choice.logprobs.content.every((one) => one.top_logprobs.length === 2 && one.logprob <= 0));
});

test("a text is completed, whole and streamed", async () => {
  const request = { model, prompt: "Once upon a time", max_tokens: 8, temperature: 0 };
  const whole = await client.completions.create(request);
  let text = "";
  for await (const chunk of await client.completions.create({ ...request, stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.ok(text);
  assert.equal(text, whole.choices[0].text);
});

test("texts are embedded", async () => {
  const input = ["a cat sat.", "9 dogs"];
  const decoded = await client.embeddings.create({ model, input }); // asks for base64 by itself
  const floats = await client.embeddings.create({ model, input, encoding_format: "float" });
  assert.deepEqual(decoded.data.map((one) => one.index), [0, 1]);
  for (const [place, { embedding }] of decoded.data.entries()) {
    assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-3);
    assert.ok(embedding.every((value, at) => Math.abs(value - floats.data[place].embedding[at]) < 1e-3));
  }
});

test("responses answer, stream, go on and are parsed", async () => {
  const first = await client.responses.create({ model, input: "What is the capital of France?", temperature: 0 });
  assert.match(first.output_text, /Paris/);
  const stream = client.responses.stream({ model, input: "What is the capital of France?", temperature: 0 });
  let text = "";
  stream.on("response.output_text.delta", ({ delta }) => (text += delta));
  assert.equal((await stream.finalResponse()).output_text, first.output_text);
  assert.equal(text, first.output_text);
  const next = await client.responses.create({
    model,
    input: "And what is the capital of Italy?",
    previous_response_id: first.id,
    temperature: 0,
  });
  assert.match(next.output_text, /Rome/);
  const parsed = await client.responses.parse({
    model,
    input: "Plan a trip to Paris.",
    max_output_tokens: 200,
    text: { format: zodTextFormat(Trip, "trip") },
  });
  assert.ok(Trip.parse(parsed.output_parsed));
});

test("a refusal names the field and has an id", async () => {
  const refused = client.chat.completions.create({ ...greedy, messages: capital, web_search_options: {} });
  await assert.rejects(refused, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "web_search_options");
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(client.chat.completions.create({ ...greedy, model: "absent", messages: capital }), {
    name: "Error",
    status: 404,
    code: "model_not_found",
  });
});
