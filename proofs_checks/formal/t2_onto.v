(** T2, the other half: a strongly monotone Lipschitz F is onto, and its inverse is 1/m-Lipschitz: a homeomorphism. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space t2 t5 t9.
Open Scope R_scope.

Theorem t2_onto (V : NormedModule R_AbsRing) (ip : InnerProduct V) (F : V -> V) (m L : R)
  (HV : complete V)
  (Hm : 0 < m)
  (HL : 0 < L)
  (Hmonotone : forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩)
  (Hlipschitz : forall u v, norm (F u [-] F v) <= L * norm (u [-] v)) :
  (forall a, exists y, F y = a /\ forall z, F z = a -> z = y) /\
  (forall u v, norm (u [-] v) <= norm (F u [-] F v) / m).
Proof.
  split; [|now apply t9_step with ip].
  intros a; assert (Ho : 0 < m / L ^ 2 < 2 * m / L ^ 2) by now apply t5_best.
  destruct (t5_relaxed V ip F m L (m / L ^ 2) a zero HV Hm HL Hmonotone Hlipschitz Ho) as (_ & y & Hy & Hu & _).
  now exists y.
Qed.
