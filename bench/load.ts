// The client side of the benchmark, in a process of its own so that its CPU time is its own. Arguments: subject, address. Takes orders by IPC.
import { openSubject, type SubjectName } from './subjects.ts';
import { type Order, perform } from './workload.ts';

const [subjectName = '', address = ''] = process.argv.slice(2);
const subject = await openSubject(subjectName as SubjectName, address);

process.on('message', (order: Order) => {
  perform(subject, order).then(
    (outcome) => process.send?.({ outcome }),
    (error: unknown) => process.send?.({ error: error instanceof Error ? error.message : String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.({ ready: true });
