/* interrupt.c - Ctrl-C: the handler only asks the library to stop (peft_*_cancel is async-signal-safe); the command then
 * saves its state and leaves with 128 + signal. A second Ctrl-C ends the process at once. */
#include "system.h"
#include "tool.h"

#include <signal.h>
#include <stdatomic.h>

static _Atomic(peft_trainer *) interrupt_trainer;
static _Atomic(peft_session *) interrupt_session;
static volatile sig_atomic_t interrupt_signal;

static void interrupt_handler(int signal_number) {
    interrupt_signal = signal_number;
    peft_trainer *trainer = atomic_load(&interrupt_trainer);
    peft_session *session = atomic_load(&interrupt_session);
    if (trainer != NULL) { peft_trainer_cancel(trainer); }
    if (session != NULL) { peft_session_cancel(session); }
}

void interrupt_watch(peft_trainer *trainer, peft_session *session) {
    atomic_store(&interrupt_trainer, trainer);
    atomic_store(&interrupt_session, session);
    system_on_interrupt(interrupt_handler);
}

void interrupt_forget(void) {
    atomic_store(&interrupt_trainer, NULL);
    atomic_store(&interrupt_session, NULL);
}

int interrupt_code(void) {
    return interrupt_signal == 0 ? 0 : TOOL_SIGNALLED + (int)interrupt_signal;
}
