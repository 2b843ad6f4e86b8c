import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;
import tunewheel.events.*;

class Publisher {
    static final ObjectMapper JSON = new ObjectMapper().setDefaultPropertyInclusion(JsonInclude.Include.NON_NULL);

    public static void main(String[] args) throws Exception {
        var ticket = new TicketPublished();
        ticket.setProject("helpdesk");
        ticket.setTicketID("T-1");
        ticket.setBody("My locker will not open.");
        var document = new DocumentPublished();
        document.setProject("helpdesk");
        document.setDocumentID("lockers.md");
        document.setContent("# Lockers\n\nPress twice.");
        var output = new Output();
        output.stringValue = "No.";
        var example = new ExamplePublished();
        example.setProject("helpdesk");
        example.setExampleID("E-1");
        example.setInput("Is it a bell?");
        example.setOutput(output);
        var question = new FeedbackReceivedMessage();
        question.setRole(Role.USER);
        question.setContent("My locker will not open.");
        var correction = new RejectedOutput();
        correction.stringValue = "Press twice.";
        var feedback = new FeedbackReceived();
        feedback.setProject("helpdesk");
        feedback.setFeedbackID("F-1");
        feedback.setCompletionID("C-1");
        feedback.setRating(Rating.DOWN);
        feedback.setMessages(List.of(question));
        feedback.setOutput("Kick it.");
        feedback.setCorrection(correction);
        var withdrawal = new DocumentWithdrawn();
        withdrawal.setProject("helpdesk");
        withdrawal.setDocumentID("old.md");
        var erasure = new ErasureRequested();
        erasure.setProject("helpdesk");
        erasure.setErasureID("L-1");
        erasure.setCustomer("person-1");
        erasure.setRequestedBy("privacy");

        var settings = Map.<String, Object>of("bootstrap.servers", System.getenv("TUNEWHEEL_BOOTSTRAP_SERVERS"));
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            send(producer, "ticket.published", "T-1", ticket);
            send(producer, "document.published", "lockers.md", document);
            send(producer, "example.published", "E-1", example);
            send(producer, "feedback.received", "C-1", feedback);
            send(producer, "document.withdrawn", "old.md", withdrawal);
            send(producer, "erasure.requested", "helpdesk", erasure);
        }
    }

    static void send(Producer<String, String> producer, String type, String key, Object data) throws Exception {
        var record = new ProducerRecord<>(type, key, JSON.writeValueAsString(data));
        var id = UUID.nameUUIDFromBytes((type + record.value()).getBytes(UTF_8)).toString();
        Map.of("specversion", "1.0", "type", type, "source", "/shop/java", "id", id)
            .forEach((name, text) -> record.headers().add("ce_" + name, text.getBytes(UTF_8)));
        producer.send(record).get();
    }
}
