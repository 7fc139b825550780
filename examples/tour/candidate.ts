// One of the candidates. Arguments: endpoint, name. Leads until it is killed.
import { campaign } from '@conclave/recipes';
import { connect } from '@conclave/sdk';

const [endpoint = '', name = ''] = process.argv.slice(2);

export type CandidateSaying = { readonly is: 'waiting' } | { readonly is: 'leading'; readonly token: string };

const say = (saying: CandidateSaying): void => void process.send?.(saying);

const client = await connect({ endpoints: endpoint });
const elected = campaign(client, 'tour/leader', { value: name, ttlSeconds: 2 });
say({ is: 'waiting' });
const leadership = await elected;
say({ is: 'leading', token: String(leadership.token) });
// A held leadership keeps the process alive: its lease is being renewed.
