import {createHash} from "node:crypto";
import {Kafka, Partitioners} from "kafkajs";

const project = "helpdesk";
const asked = [{role: "user", content: "My locker will not open."}];
const events = [
  ["ticket.published", "T-1", {project, ticket_id: "T-1", body: "My locker will not open.", answer: "Press twice."}],
  ["document.published", "lockers.md", {project, document_id: "lockers.md", content: "# Lockers\n\nPress twice."}],
  ["example.published", "E-1", {project, example_id: "E-1", input: "Is it a bell?", output: "No."}],
  ["feedback.received", "C-1", {project, feedback_id: "F-1", completion_id: "C-1", rating: "down", messages: asked,
    output: "Kick it.", correction: "Press twice."}],
  ["document.withdrawn", "old.md", {project, document_id: "old.md", reason: "replaced"}],
  ["erasure.requested", project, {project, erasure_id: "L-1", customer: "person-1", requested_by: "privacy"}],
];
const kafka = new Kafka({brokers: process.env.TUNEWHEEL_BOOTSTRAP_SERVERS.split(",")});
const producer = kafka.producer({createPartitioner: Partitioners.DefaultPartitioner});
await producer.connect();
for (const [topic, key, data] of events) {
  const value = JSON.stringify(data);
  const id = createHash("sha256").update(topic + value).digest("hex");
  const headers = {ce_specversion: "1.0", ce_type: topic, ce_source: "/shop/node", ce_id: id};
  await producer.send({topic, messages: [{key, value, headers}]});
}
await producer.disconnect();
