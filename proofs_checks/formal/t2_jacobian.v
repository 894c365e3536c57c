(** T2 from Jacobians: a lower bound of the symmetric part's eigenvalues bounds the modulus. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space jacobian t2.
Open Scope R_scope.

(** <J v, v> >= lambda |v|^2 says that the symmetric part of J has no eigenvalue below lambda. *)
Theorem t2_jacobian (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : V -> V) (J : V -> V -> V) (rho lambda : R)
  (Hrho : 0 <= rho <= 1)
  (HJ : forall y, filterdiff D (locally y) (J y))
  (Hlambda : forall y v, lambda * norm v ^ 2 <= ⟨J y v, v⟩)
  (Hm : 0 < rho + (1 - rho) * lambda) :
  let F := fun y => rho [*] y [+] (1 - rho) [*] D y in
  let m := rho + (1 - rho) * lambda in
  (forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩) /\ (forall u v, F u = F v -> u = v).
Proof.
  intros F m.
  assert (HF : forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩).
  { apply (t2_modulus V ip D rho lambda Hrho); intros u v.
    apply (jacobian_monotone D J u (norm (v [-] u)) lambda); auto.
    - rewrite norm_minus_refl; apply norm_ge_0.
    - lra. }
  split; [exact HF|]; now apply (t2_unique V ip F m Hm).
Qed.
