(** T2. Uniqueness: monotonicity.  The modulus m = rho + (1 - rho) lambda_min makes F strongly monotone, hence one-to-one. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space.
Open Scope R_scope.

(** From the denoiser to the step: a lower bound lambda of D's monotonicity gives F the modulus rho + (1 - rho) lambda. *)
Theorem t2_modulus (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : V -> V) (rho lambda : R)
  (Hrho : 0 <= rho <= 1)
  (HD : forall u v, lambda * norm (u [-] v) ^ 2 <= ⟨D u [-] D v, u [-] v⟩) :
  let F := fun y => rho [*] y [+] (1 - rho) [*] D y in
  forall u v, (rho + (1 - rho) * lambda) * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩.
Proof.
  intros F u v; unfold F.
  replace (rho [*] u [+] (1 - rho) [*] D u [-] (rho [*] v [+] (1 - rho) [*] D v))
    with (rho [*] (u [-] v) [+] (1 - rho) [*] (D u [-] D v)) by vector.
  rewrite inner_plus, !inner_scal, inner_norm.
  assert (H := Rmult_le_compat_l (1 - rho) _ _ ltac:(lra) (HD u v)); lra.
Qed.

(** A strongly monotone F takes no value twice. *)
Theorem t2_unique (V : NormedModule R_AbsRing) (ip : InnerProduct V) (F : V -> V) (m : R)
  (Hm : 0 < m)
  (HF : forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩) :
  forall u v, F u = F v -> u = v.
Proof.
  intros u v E; specialize (HF u v); rewrite E in HF.
  replace (F v [-] F v) with (zero : V) in HF by vector.
  rewrite inner_zero in HF.
  apply norm_minus_eq; assert (H := norm_ge_0 (u [-] v)).
  destruct H as [H|H]; [|lra].
  assert (0 < m * norm (u [-] v) ^ 2) by (apply Rmult_lt_0_compat; [lra|apply pow_lt; lra]); lra.
Qed.

(** The exact denoiser's Jacobian is a covariance, so D is monotone (E3) and every step with rho > 0 is one-to-one. *)
Theorem t2_exact (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : V -> V) (rho : R)
  (Hrho : 0 < rho <= 1)
  (HD : forall u v, 0 <= ⟨D u [-] D v, u [-] v⟩) :
  let F := fun y => rho [*] y [+] (1 - rho) [*] D y in
  (forall u v, rho * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩) /\ (forall u v, F u = F v -> u = v).
Proof.
  intros F.
  assert (H : forall u v, rho * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩).
  { intros u v.
    assert (H := t2_modulus V ip D rho 0 ltac:(lra)); simpl in H.
    specialize (H ltac:(intros a b; specialize (HD a b); simpl; lra) u v).
    unfold F; rewrite Rmult_0_r, Rplus_0_r in H; exact H. }
  split; [exact H|]; apply (t2_unique V ip F rho); [lra|exact H].
Qed.
