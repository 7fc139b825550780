import type { Call, CallEnd, CallOptions } from '@conclave/wire';
import { ConclaveError } from '../errors/conclave-error.ts';
import { fromCallEnd, isAnswer, isTransient, outcomeOf, refusesToken } from '../errors/from-call-end.ts';
import { onAbort } from './abort.ts';
import { cancelled, heldBack, stale, unreachable } from './call-errors.ts';
import { CallWait } from './call-wait.ts';
import { type Attempt, Hedges } from './hedges.ts';
import type { AwaitedCall } from './liveness.ts';
import { Passage } from './passage.ts';
import type { CallHost, Procedure, RequestOptions } from './procedure.ts';
import type { ReadOrder } from './read-order.ts';
import type { Slot } from './slot.ts';
import { notIdentified, refusalsMax, type Token } from './token.ts';

const DEADLINE_EXCEEDED = 4;

/**
 * One call from the first attempt to its one end. The way of a call that just succeeds is kept short: no timer, no controller, one closure,
 * and whatever only a retry needs is made at the first retry.
 *
 * A mutation goes out again only when its transport proves that no server saw it. Everything else that is not an answer is reported, with
 * what is known of the effect.
 */
export class UnaryCall<Request, Response, Context, Result> implements AwaitedCall {
  readonly #host: CallHost;
  readonly #procedure: Procedure<Request, Response, Context, Result>;
  readonly #request: Uint8Array;
  readonly #context: Context;
  readonly #deadline: number;
  readonly #signal: AbortSignal | undefined;
  readonly #resolve: (result: Result) => void;
  readonly #reject: (error: ConclaveError) => void;

  /** How far the client had seen the store when the call was made. What it saw since need not be in the answer. */
  readonly #seen: number;

  #isSettled = false;
  #isCancelled = false;
  #slot: Slot | undefined;
  #token: Token | undefined;
  /** How many tokens were refused. */
  #refusals = 0;
  #call: Call | undefined;
  /** Made when the call is slow. */
  #hedges: Hedges | undefined;
  #isSlow = false;
  /** The last failure, for when there is no next attempt. */
  #failure: CallEnd | undefined;
  /** Made when it first has to wait. */
  #itsWait: CallWait | undefined;
  #stopListening: (() => void) | undefined;
  readonly #passage: Passage | undefined;
  /** When it began, if that is measured; NaN: it has not. */
  #startedAt = Number.NaN;

  constructor(
    host: CallHost,
    procedure: Procedure<Request, Response, Context, Result>,
    request: Request,
    context: Context,
    options: RequestOptions | undefined,
    resolve: (result: Result) => void,
    reject: (error: ConclaveError) => void,
  ) {
    this.#host = host;
    this.#procedure = procedure;
    this.#request = procedure.input.encode(request);
    this.#context = context;
    this.#deadline = host.deadlineOf(options?.deadlineMs);
    this.#signal = options?.signal;
    this.#seen = host.order?.highest ?? 0;
    this.#resolve = resolve;
    this.#reject = reject;
    if (host.middleware === undefined) return;
    const { path, isRepeatable } = procedure;
    this.#passage = new Passage(host.middleware, host.runtime, { kind: 'unary', path, isRepeatable, deadline: this.#deadline, request });
  }

  start(): void {
    if (this.#host.isClosed) {
      this.#fail(this.#host.closedError());
      return;
    }
    if (this.#signal !== undefined) {
      if (this.#signal.aborted) {
        this.#fail(cancelled(this.#signal, 'not-applied'));
        return;
      }
      this.#stopListening = onAbort(this.#signal, () => this.cancel());
    }
    this.#host.hedgeBudget.earn();
    if (this.#host.meter !== undefined) this.#startedAt = this.#host.meter.callStarted();
    if (this.#passage === undefined) this.#attempt(undefined);
    else this.#pass(this.#passage);
  }

  /** Goes out once the middleware lets it, at most until the deadline. */
  #pass(passage: Passage): void {
    let hasPassed = false;
    passage.enter({
      onPassed: () => {
        hasPassed = true;
        this.#attempt(undefined);
      },
      onRefused: (error) => this.#fail(error),
    });
    if (!hasPassed && !this.#isSettled) this.#wait.park(() => this.#fail(heldBack()));
  }

  /** Gives the call up. An answer that is already on its way in still counts. */
  cancel(): void {
    if (this.#isSettled || this.#isCancelled) return;
    this.#isCancelled = true;
    if (this.#call !== undefined) this.#call.cancel();
    else this.#fail(cancelled(this.#signal, 'not-applied'));
  }

  /** The client closes. A call under way is ended by its connection; this is for those that wait. */
  close(): void {
    if (this.#call === undefined) this.#fail(this.#host.closedError());
  }

  /** An endpoint is ready: the waiting is over. */
  onReady(): void {
    this.#attempt(undefined);
  }

  /** The client can say who it is: the waiting is over. */
  onToken(): void {
    this.#attempt(undefined);
  }

  onRefused(error: ConclaveError): void {
    this.#fail(error);
  }

  #attempt(avoid: Slot | undefined): void {
    if (this.#isSettled) return;
    this.#itsWait?.end();
    const slot = this.#host.balancer.pick(avoid);
    if (slot === undefined) this.#waitForEndpoint();
    else if (this.#identify()) this.#send(slot);
  }

  #waitForEndpoint(): void {
    this.#wait.park(() => this.#fail(unreachable(this.#host.balancer.status(), this.#failure)));
    this.#host.balancer.wait(this);
  }

  /** Whether it can be said whose call this is, if that is to be said. If not yet, waits for it. */
  #identify(): boolean {
    const { authenticator } = this.#host;
    if (authenticator === undefined || this.#procedure.isAnonymous === true) return true;
    this.#token = authenticator.token;
    if (this.#token !== undefined) return true;
    this.#wait.park(() =>
      this.#fail(this.#host.balancer.pick() === undefined ? unreachable(this.#host.balancer.status(), this.#failure) : notIdentified()),
    );
    authenticator.wait(this);
    return false;
  }

  #send(slot: Slot): void {
    if (this.#slot !== undefined) this.#noteRepeat(slot);
    this.#slot = slot;
    this.#isSlow = false;
    slot.begin(true, this);
    this.#passage?.attempt(slot.address);
    this.#procedure.onSend?.(this.#context);
    const call = slot.connection.unary(this.#procedure.path, this.#request, this.#callOptions(), (end, response) => {
      if (this.#call === call) this.#onDone(slot, end, response);
    });
    this.#call = call;
  }

  /**
   * A read that has waited for long is also asked of another endpoint of which nothing bad is known, and later of a third one, while the budget
   * lasts. The first answer counts. What was asked first goes on: it may merely be much.
   */
  onSlow(): void {
    this.#isSlow = true;
    const { isRepeatable, onSend, path } = this.#procedure;
    if (this.#call === undefined || this.#isCancelled || !isRepeatable || onSend !== undefined) return;
    this.#hedges ??= new Hedges(this);
    const slot = this.#hedges.next(this.#host, this.#slot as Slot);
    if (slot === undefined) return;
    this.#noteRepeat(slot);
    slot.begin(true, this);
    this.#passage?.attempt(slot.address);
    const call = slot.connection.unary(path, this.#request, this.#callOptions(), (end, response) => {
      if (this.#call === call) this.#onDone(slot, end, response);
      else this.#onHedgeDone({ slot, call }, end, response);
    });
    this.#hedges.add({ slot, call });
  }

  #noteRepeat(slot: Slot): void {
    const { path } = this.#procedure;
    const { code: grpcCode, message: reason } = this.#failure ?? {};
    this.#host.meter?.callRepeated(path);
    this.#host.runtime.log.debug({ path, endpoint: slot.address, grpcCode, reason }, 'a call is sent once more');
  }

  #callOptions(): CallOptions {
    const isTimed = this.#deadline !== Number.POSITIVE_INFINITY;
    const own = this.#token?.call;
    const metadata = this.#passage === undefined ? own : this.#passage.metadata(own);
    if (metadata === undefined) return isTimed ? { deadline: this.#deadline } : noOptions;
    return isTimed ? { deadline: this.#deadline, metadata } : { metadata };
  }

  #onDone(slot: Slot, end: CallEnd, response: Uint8Array | undefined): void {
    this.#call = undefined;
    this.#judge(slot, end, this.#isSlow);
    if (end.code === 0) {
      this.#dropHedges();
      this.#succeed(response as Uint8Array, slot);
      return;
    }
    this.#passage?.fail(end.code, end.message);
    const next = this.#host.isClosed || this.#isCancelled || !this.#mayRepeat(end) ? undefined : this.#hedges?.shift();
    if (next !== undefined) {
      this.#slot = next.slot;
      this.#call = next.call;
      return;
    }
    this.#dropHedges();
    if (this.#host.isClosed) this.#fail(this.#host.closedError(this.#outcomeOf(end)));
    else if (this.#isCancelled) this.#fail(cancelled(this.#signal, this.#outcomeOf(end)));
    else if (this.#mayRenew(end)) this.#renew(end, slot);
    else if (this.#mayRepeat(end)) this.#retry(end, slot);
    else this.#fail(fromCallEnd(end, !this.#procedure.isRepeatable));
  }

  #onHedgeDone({ slot, call }: Attempt, end: CallEnd, response: Uint8Array | undefined): void {
    const others = this.#hedges?.remove(call);
    if (others === undefined) return;
    this.#judge(slot, end, false);
    // Whatever else became of it, the first attempt is still under way.
    if (end.code !== 0) return;
    const first = { slot: this.#slot as Slot, call: this.#call as Call };
    this.#call = undefined;
    for (const older of [first, ...others]) older.slot.fail('others answer what it does not');
    this.#drop(first);
    this.#dropHedges();
    this.#succeed(response as Uint8Array, slot);
    this.#host.hedgeBudget.refund();
  }

  #dropHedges(): void {
    if (this.#hedges === undefined) return;
    this.#host.hedgeBudget.forget(this);
    for (const hedge of this.#hedges.clear()) this.#drop(hedge);
  }

  #drop({ slot, call }: Attempt): void {
    slot.end(true, false, this);
    call.cancel();
  }

  /** An attempt has ended. */
  #judge(slot: Slot, end: CallEnd, isSlow: boolean): void {
    slot.end(true, isAnswer(end), this);
    slot.judge(end, isSlow);
  }

  #mayRepeat(end: CallEnd): boolean {
    if (end.code === DEADLINE_EXCEEDED && this.#host.runtime.monotonic() >= this.#deadline) return false;
    // Our server says of a request that was lost with a leader that it never took effect: then it is as good as never sent.
    return end.notProcessed || ((this.#procedure.isRepeatable || outcomeOf(end) === 'not-applied') && isTransient(end));
  }

  #mayRenew(end: CallEnd): boolean {
    return this.#token !== undefined && refusesToken(end.code, end.message) && this.#refusals < refusalsMax;
  }

  /** Goes out again with another token. The first time at once: most often a token was merely too old. */
  #renew(end: CallEnd, slot: Slot): void {
    this.#host.authenticator?.refuse(this.#token as Token);
    if (this.#refusals++ === 0) this.#attempt(undefined);
    else this.#retry(end, slot);
  }

  #retry(end: CallEnd, slot: Slot): void {
    this.#failure = end;
    // The first repeat of a call that only met a dead connection need not pause when there is another to go to.
    const pauseMs = this.#wait.nextPauseMs(end.notProcessed && this.#host.balancer.hasOther(slot));
    if (pauseMs === 0) this.#attempt(slot);
    else if (this.#wait.allows(pauseMs)) this.#wait.pause(pauseMs, () => this.#attempt(slot));
    else this.#fail(fromCallEnd(end, !this.#procedure.isRepeatable));
  }

  #isInOrder(response: Response, order: ReadOrder): boolean {
    const revision = this.#procedure.revision?.(response);
    if (revision === undefined) return true;
    // Only what can be asked again is held to it; a write has been done, whoever tells of it.
    if (this.#procedure.isRepeatable && revision < this.#seen) return false;
    order.observe(revision);
    return true;
  }

  /** The member that answered is behind. */
  #askAnother(slot: Slot): void {
    this.#passage?.fail(0, 'the answer was from before what this client has seen');
    if (this.#host.isClosed) {
      this.#fail(this.#host.closedError());
      return;
    }
    if (this.#isCancelled) {
      this.#fail(cancelled(this.#signal, 'not-applied'));
      return;
    }
    const pauseMs = this.#wait.nextPauseMs(this.#host.balancer.hasOther(slot));
    if (!this.#wait.allows(pauseMs)) this.#fail(stale(this.#seen));
    else if (pauseMs === 0) this.#attempt(slot);
    else this.#wait.pause(pauseMs, () => this.#attempt(slot));
  }

  get #wait(): CallWait {
    this.#itsWait ??= new CallWait(this.#host, this, this.#deadline);
    return this.#itsWait;
  }

  #succeed(bytes: Uint8Array, slot: Slot): void {
    let result: Result;
    try {
      const response = this.#procedure.output.decode(bytes);
      if (this.#host.order !== undefined && !this.#isInOrder(response, this.#host.order)) {
        this.#askAnother(slot);
        return;
      }
      this.#host.meter?.see(this.#procedure.revision?.(response) ?? 0);
      result = this.#procedure.result(response, this.#context);
    } catch (cause) {
      const outcome = this.#procedure.isRepeatable ? 'not-applied' : 'applied';
      this.#fail(new ConclaveError({ code: 'internal', message: `${this.#procedure.path}: unreadable response`, outcome, cause }));
      return;
    }
    this.#settle(undefined);
    this.#resolve(result);
  }

  #fail(error: ConclaveError): void {
    if (this.#isSettled) return;
    this.#itsWait?.end();
    this.#settle(error);
    this.#reject(error);
  }

  #settle(error: ConclaveError | undefined): void {
    this.#isSettled = true;
    this.#stopListening?.();
    // One that could not begin has not been seen by anybody.
    if (!Number.isNaN(this.#startedAt)) this.#host.meter?.callEnded(this.#procedure.path, error?.code ?? 'ok', this.#startedAt);
    this.#passage?.end(error);
  }

  #outcomeOf(end: CallEnd): ConclaveError['outcome'] {
    return this.#procedure.isRepeatable ? 'not-applied' : outcomeOf(end);
  }
}

const noOptions = {};
