import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileReader;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import org.apache.kafka.clients.admin.Admin;

/**
 * Stands in for Kafdrop, which no registry has: it takes the same arguments and files, and asks the
 * broker by Kafka's own client. What Kafdrop's pages show it does not know.
 */
public class Standin {
    public static void main(String[] arguments) throws Exception {
        Properties given = new Properties();
        for (String argument : arguments) {
            String[] words = argument.substring("--".length()).split("=", 2);
            given.setProperty(words[0], words[1]);
        }
        String location = given.getProperty("spring.config.additional-location");
        Properties settings = load(location.substring("file:".length()));
        Properties client = load(given.getProperty("kafka.propertiesFile"));
        client.setProperty("bootstrap.servers", settings.getProperty("kafka.brokerConnect"));
        client.setProperty("default.api.timeout.ms", "5000");
        client.setProperty("request.timeout.ms", "4000");
        Admin admin = Admin.create(client);

        int port = Integer.parseInt(settings.getProperty("server.port"));
        String address = settings.getProperty("server.address");
        HttpServer server = HttpServer.create(new InetSocketAddress(address, port), 0);
        String path = settings.getProperty("server.servlet.context-path").replaceAll("/$", "");
        server.createContext(path + "/actuator/health", exchange -> answer(exchange, () -> {
            admin.describeCluster().clusterId().get();
            return "{\"status\":\"UP\"}";
        }));
        server.createContext(path + "/topic", exchange -> answer(exchange, () ->
            "[\"" + String.join("\",\"", new TreeSet<>(admin.listTopics().names().get())) + "\"]"));
        server.start();
    }

    static Properties load(String path) throws IOException {
        Properties properties = new Properties();
        try (FileReader reader = new FileReader(path, StandardCharsets.UTF_8)) {
            properties.load(reader);
        }
        return properties;
    }

    static void answer(HttpExchange exchange, Callable<String> work) throws IOException {
        int status = 200;
        String text;
        try {
            text = work.call();
        } catch (Exception error) {
            status = 503;
            text = error.toString();
        }
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}
