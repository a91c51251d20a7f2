package engine

// Mutant plants one known bug. The simulator's tests switch each on and must find it: a checker that catches nothing proves
// nothing. Production code leaves it zero.
type Mutant string

// The planted bugs of the executor.
const (
	MutantNone          Mutant = ""
	MutantNoNonce       Mutant = "no-nonce"       // a refusal that carries my nonce counts as lost
	MutantAmbiguousLost Mutant = "ambiguous-lost" // an unknown outcome counts as a refusal
	MutantAmbiguousWon  Mutant = "ambiguous-won"  // an unknown outcome counts as a success
	MutantEagerTakeover Mutant = "eager-takeover" // takes over from a holder that is alive
	MutantBlindFinish   Mutant = "blind-finish"   // commits without comparing the record
	MutantSilentSkip    Mutant = "silent-skip"    // moves the cursor without recording what it passes
	MutantCrossLife     Mutant = "cross-life"     // a commit in flight survives the incarnation
	MutantSameAttempt   Mutant = "same-attempt"   // takes over without counting an attempt
	MutantNoCursor      Mutant = "no-cursor"      // the end of a run does not move the cursor
)
