// Kafka's own assignors on generated groups: the table that tests/unit/broker/test_assignor.c compares Busway's with.
//
//   java -cp 'build/compat/jars/*' tests/compat/MakeAssignments.java > tests/unit/broker/assignor_cases.txt
//
// One case: `case N STRATEGY`, `topic NAME PARTITIONS`…, `member ID INSTANCE|- GENERATION TOPIC,… OWNED`…, `out ID PARTITIONS`…, `end`.
// PARTITIONS are `topic:0,1,2;topic:4`, or `-` for none. The sticky cases are chains: some members come and go, and what Kafka assigned
// before is what the members own in the next case. The seed is fixed, so that the table is the same on every run.
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.internals.*;
import org.apache.kafka.common.TopicPartition;

public class MakeAssignments {
    static final Random random = new Random(20240917);
    static int cases;

    // Kafka's sticky assignment, told in userData only which generation a member's partitions are of.
    static class Sticky extends AbstractStickyAssignor {
        public String name() { return "sticky"; }
        protected MemberData memberData(Subscription s) {
            int generation = s.userData() == null ? DEFAULT_GENERATION : s.userData().getInt(0);
            return new MemberData(s.ownedPartitions(), Optional.of(generation), Optional.empty());
        }
    }

    static class Member {
        String id, instance;
        int generation = -1;
        List<String> topics = new ArrayList<>();
        List<TopicPartition> owned = new ArrayList<>();
    }

    static String text(Collection<TopicPartition> partitions) {
        if (partitions.isEmpty()) return "-";
        TreeMap<String, TreeSet<Integer>> byTopic = new TreeMap<>();
        for (TopicPartition p : partitions) byTopic.computeIfAbsent(p.topic(), t -> new TreeSet<>()).add(p.partition());
        StringJoiner out = new StringJoiner(";");
        byTopic.forEach((topic, numbers) -> {
            StringJoiner list = new StringJoiner(",");
            numbers.forEach(n -> list.add(n.toString()));
            out.add(topic + ":" + list);
        });
        return out.toString();
    }

    static Map<String, List<TopicPartition>> run(String strategy, Map<String, Integer> topics, List<Member> members) {
        AbstractPartitionAssignor assignor = strategy.equals("range") ? new RangeAssignor()
            : strategy.equals("roundrobin") ? new RoundRobinAssignor() : new Sticky();
        Map<String, Subscription> subscriptions = new HashMap<>();
        for (Member m : members) {
            ByteBuffer generation = ByteBuffer.allocate(4);
            generation.putInt(0, m.generation);
            Subscription s = new Subscription(m.topics, generation, m.owned);
            s.setGroupInstanceId(Optional.ofNullable(m.instance));
            subscriptions.put(m.id, s);
        }
        Map<String, Integer> subscribed = new HashMap<>();
        for (Member m : members) for (String t : m.topics) if (topics.containsKey(t)) subscribed.put(t, topics.get(t));
        Map<String, List<TopicPartition>> out = assignor.assign(subscribed, subscriptions);
        System.out.printf("case %d %s%n", ++cases, strategy);
        new TreeMap<>(topics).forEach((t, n) -> System.out.printf("topic %s %d%n", t, n));
        for (Member m : members)
            System.out.printf("member %s %s %d %s %s%n", m.id, m.instance == null ? "-" : m.instance, m.generation,
                m.topics.isEmpty() ? "-" : String.join(",", m.topics), text(m.owned));
        for (Member m : members) System.out.printf("out %s %s%n", m.id, text(out.get(m.id)));
        System.out.println("end");
        return out;
    }

    static int between(int low, int high) { return low + random.nextInt(high - low + 1); }

    static Map<String, Integer> someTopics(int most, int mostPartitions) {
        Map<String, Integer> topics = new TreeMap<>();
        String[] stems = {"orders", "Orders", "a", "b", "z-last", "metrics.cpu", "metrics_cpu", "t"};
        for (int i = between(1, most); i > 0; i--) topics.put(stems[random.nextInt(stems.length)] + random.nextInt(30), between(1, mostPartitions));
        return topics;
    }

    static Member newMember(int number, boolean mayBeStatic) {
        Member m = new Member();
        m.id = "client" + random.nextInt(50) + "-" + Integer.toHexString(random.nextInt()) + "-" + number;
        if (mayBeStatic && random.nextInt(3) == 0) m.instance = "i" + random.nextInt(1000) + "." + number;
        return m;
    }

    static void subscribe(Member m, Map<String, Integer> topics, boolean all) {
        m.topics.clear();
        for (String t : topics.keySet()) if (all || random.nextInt(100) < 55) m.topics.add(t);
        Collections.shuffle(m.topics, random);
    }

    static void plain(String strategy, int mostTopics, int mostPartitions, int mostMembers) {
        Map<String, Integer> topics = someTopics(mostTopics, mostPartitions);
        boolean all = random.nextInt(2) == 0;
        List<Member> members = new ArrayList<>();
        for (int i = between(1, mostMembers); i > 0; i--) {
            Member m = newMember(i, true);
            subscribe(m, topics, all);
            members.add(m);
        }
        run(strategy, topics, members);
    }

    // A group's life: each step changes members, subscriptions or partitions, and carries over what was assigned.
    static void chain(int steps, boolean all, int mostTopics, int mostPartitions, int mostMembers) {
        Map<String, Integer> topics = someTopics(mostTopics, mostPartitions);
        List<Member> members = new ArrayList<>();
        int number = 0;
        for (int i = between(1, mostMembers); i > 0; i--) {
            Member m = newMember(++number, false);
            subscribe(m, topics, all);
            members.add(m);
        }
        for (int step = 1; step <= steps; step++) {
            Map<String, List<TopicPartition>> out = run("sticky", topics, members);
            for (Member m : members) {
                m.owned = new ArrayList<>(out.get(m.id));
                m.generation = step;
            }
            switch (random.nextInt(5)) {
                case 0: // some join
                    for (int i = between(1, 3); i > 0; i--) {
                        Member m = newMember(++number, false);
                        subscribe(m, topics, all);
                        members.add(m);
                    }
                    break;
                case 1: // some leave
                    for (int i = between(1, 3); i > 0 && members.size() > 1; i--) members.remove(random.nextInt(members.size()));
                    break;
                case 2: // a topic grows
                    String grown = new ArrayList<>(topics.keySet()).get(random.nextInt(topics.size()));
                    topics.put(grown, topics.get(grown) + between(1, 5));
                    break;
                case 3: // a topic comes, everybody (or some) subscribes to it
                    String fresh = "new" + step;
                    topics.put(fresh, between(1, mostPartitions));
                    for (Member m : members) if (all || random.nextBoolean()) m.topics.add(fresh);
                    break;
                default: // one is replaced; and a member that slept claims what it had in an older generation
                    members.remove(random.nextInt(members.size()));
                    Member m = newMember(++number, false);
                    subscribe(m, topics, all);
                    members.add(m);
                    if (members.size() > 1) {
                        Member other = members.get(0);
                        m.owned = new ArrayList<>();
                        for (TopicPartition p : other.owned) if (m.topics.contains(p.topic())) m.owned.add(p);
                        m.generation = other.generation - 1;
                    }
            }
        }
    }

    public static void main(String[] arguments) {
        System.out.println("# Made by tests/compat/MakeAssignments.java with kafka-clients 3.9.0; do not edit.");
        for (int i = 0; i < 70; i++) plain("range", i < 50 ? 5 : 20, i < 50 ? 12 : 40, i < 50 ? 8 : 40);
        for (int i = 0; i < 70; i++) plain("roundrobin", i < 50 ? 5 : 20, i < 50 ? 12 : 40, i < 50 ? 8 : 40);
        for (int i = 0; i < 12; i++) chain(6, true, 4, 12, 8);
        for (int i = 0; i < 12; i++) chain(6, false, 6, 12, 8);
        for (int i = 0; i < 3; i++) chain(5, true, 10, 30, 30);
        for (int i = 0; i < 3; i++) chain(5, false, 15, 20, 25);
    }
}
