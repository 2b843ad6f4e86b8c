// Publishes each event that another system may write, by the types that are generated from the schemas.
import type {DocumentPublished} from "./types/document.published.js";
import type {DocumentWithdrawn} from "./types/document.withdrawn.js";
import type {ErasureRequested} from "./types/erasure.requested.js";
import type {ExamplePublished} from "./types/example.published.js";
import type {FeedbackReceived} from "./types/feedback.received.js";
import type {TicketPublished} from "./types/ticket.published.js";

const project = "helpdesk";
const ticket: TicketPublished = {
  project, ticket_id: "T-1", body: "My locker will not open.", answer: {category: "lockers"},
  thread: [{role: "user", content: "Hello."}], attributes: {team: "north"}, media_type: "text/plain",
};
const document: DocumentPublished = {project, document_id: "lockers.md", content: "# Lockers\n\nPress twice."};
const withdrawal: DocumentWithdrawn = {project, document_id: "T-1", kind: "ticket", reason: "wrong"};
const example: ExamplePublished = {project, example_id: "E-1", input: "Is it a bell?", output: "No."};
const feedback: FeedbackReceived = {project, feedback_id: "F-1", completion_id: "C-1", rating: "down"};
const erasure: ErasureRequested = {project, erasure_id: "L-1", customer: "person-1", requested_by: "privacy"};

const events = {
  "ticket.published": ticket, "document.published": document, "document.withdrawn": withdrawal,
  "example.published": example, "feedback.received": feedback, "erasure.requested": erasure,
};
for (const [type, data] of Object.entries(events)) {
  console.log(JSON.stringify({specversion: "1.0", type, source: "/shop", id: `${type}/1`, data}));
}
